"""How fast training goes, with the time of saves and evaluations left out."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_STEPS_FOR_THE_PACE = 50  # The ETA follows the newest steps, smoothed by a median.


@dataclass(frozen=True)
class Speed:
    """What was measured over some steps."""

    tokens_per_second: float | None = None
    """Trained tokens over all processes; none where no step was timed."""

    data_wait: float | None = None
    """Share of the time that this process waited for rows, from 0 to 1."""


class Pace:
    """The times of one attempt's steps.

    Args:
        tokens: Those that earlier attempts trained.
    """

    def __init__(self, tokens: float = 0.0) -> None:
        self._step_seconds: deque[float] = deque(maxlen=_STEPS_FOR_THE_PACE)
        self._last_step: float | None = None
        self._wait = 0.0  # Of the step that is going on.
        self._before = _Sum(tokens)
        self._read = self._before  # Up to the last `read`.
        self._all = self._before
        self._begin = time.perf_counter()

    def step(self) -> None:
        """Notes the end of a step."""
        now = time.perf_counter()
        if self._last_step is not None:
            seconds = now - self._last_step
            self._step_seconds.append(seconds)
            self._all = _Sum(
                self._all.tokens, self._all.seconds + seconds, self._all.wait + self._wait
            )
        self._last_step, self._wait = now, 0.0

    def pause(self) -> None:
        """Notes that something else than training took time since the last step."""
        self._last_step = None

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields `batches`, and takes the time until each is there."""
        while True:
            begin = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._wait += time.perf_counter() - begin
            yield batch

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since training began in this process."""
        return time.perf_counter() - self._begin

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the newest steps; none before there are two."""
        return statistics.median(self._step_seconds) if self._step_seconds else None

    def read(self, tokens: float) -> Speed:
        """Returns the speed since the last call, given all tokens trained so far."""
        before = self._read
        self._all = self._read = _Sum(tokens, self._all.seconds, self._all.wait)
        return self._read.since(before)

    def whole(self) -> Speed:
        """Returns the speed of this attempt up to the last `read`."""
        return self._read.since(self._before)


@dataclass(frozen=True)
class _Sum:
    tokens: float = 0.0
    seconds: float = 0.0
    wait: float = 0.0

    def since(self, before: _Sum) -> Speed:
        seconds = self.seconds - before.seconds
        if seconds <= 0:
            return Speed()
        return Speed(
            tokens_per_second=(self.tokens - before.tokens) / seconds,
            data_wait=min(1.0, (self.wait - before.wait) / seconds),
        )
