"""How a tracker is told: in batches, again and again until it takes them, and never at any cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from llmtrain_api.base import ApiModel
from llmtrain_api.exits import ExitClass
from llmtrain_trainer.lines import Tail
from llmtrain_trainer.tracking.points import Point, read_points
from llmtrain_trainer.workdir import TRAINER_LOG, write_atomically

END = "tracking-end"
"""File in the working folder in which the launcher says how training ended: an exit class."""
_LEAST_PAUSE = 2.0  # Seconds between two batches.
_MOST_PAUSE = 60.0  # Of a service that does not take them.
_PAUSE_AT_THE_END = 0.5
_POLL_SECONDS = 0.1
_MOST_LETTERS = 300  # Of what a service's library says of a fault.


class Tracker(Protocol):
    """A run of a service."""

    def begin(self) -> None:
        """Opens the run, or goes on with it."""

    def log(self, points: Sequence[Point]) -> None:
        """Tells it; of a point that it knows already nothing comes of telling it again."""

    def end(self, exit_class: ExitClass) -> None:
        """Closes the run."""


class Delivered(ApiModel):
    """What a tracker's process leaves for the launcher."""

    whole: bool
    """Whether the service has taken everything, the end included."""

    trouble: str = ""
    """Why it did not take the last it was offered; empty where it did."""


def state_file(service: str) -> str:
    """Returns the name of the file with what became of a service."""
    return f"tracking-{service}.json"


class Delivery:
    """Hands the training log of a working folder to a tracker.

    Args:
        service: The tracker's name, for the log.
        tracker: The tracker.
        folder: The working folder.
        say: Prints a line for people.
        alive: Whether the launcher is still there.
    """

    def __init__(
        self,
        service: str,
        tracker: Tracker,
        folder: Path,
        say: Callable[[str], None],
        alive: Callable[[], bool],
    ) -> None:
        self._service = service
        self._tracker = tracker
        self._folder = folder
        self._say = say
        self._alive = alive
        self._tail = Tail(folder / TRAINER_LOG)
        self._waiting: list[Point] = []
        self._begun = False
        self._trouble = ""
        self._pause = _LEAST_PAUSE

    def until_the_end(self) -> None:
        """Delivers until all is delivered after the end of training, or the launcher is gone."""
        while self._alive():
            end = self._end()  # Before the log, so that the last line is in it.
            if self._delivered(end) and end is not None:
                self._note("", whole=True)
                return
            self._rest()

    def _delivered(self, end: ExitClass | None) -> bool:
        """Offers what is new, and the end where it has come; returns whether all was taken."""
        if not self._waiting:
            lines = self._tail.read(to_the_end=end is not None)
            self._waiting = read_points(lines, time.time())
        try:
            if not self._begun:
                self._tracker.begin()
                self._begun = True
            if self._waiting:
                self._tracker.log(self._waiting)
                self._waiting = []
            if end is not None:
                self._tracker.end(end)
        except Exception as error:  # Whatever a service's library raises: training goes on.
            words = " ".join(str(error).split())[:_MOST_LETTERS]
            self._note(f"{type(error).__name__}: {words}")
            self._pause = min(2 * self._pause, _MOST_PAUSE)
            return False
        self._pause = _LEAST_PAUSE
        self._note("")
        return True

    def _end(self) -> ExitClass | None:
        path = self._folder / END
        return ExitClass(path.read_text(encoding="utf-8")) if path.exists() else None

    def _rest(self) -> None:
        """Pauses, but not for long once training has ended."""
        until = time.monotonic() + self._pause
        while (left := until - time.monotonic()) > 0 and self._alive():
            if left > _PAUSE_AT_THE_END and (self._folder / END).exists():
                until = time.monotonic() + _PAUSE_AT_THE_END
            time.sleep(_POLL_SECONDS)

    def _note(self, trouble: str, *, whole: bool = False) -> None:
        """Says once when the service takes nothing, and once when it does again."""
        if bool(trouble) != bool(self._trouble):
            self._say(
                f"{self._service} cannot be told of this run, training goes on: {trouble}"
                if trouble
                else f"{self._service} is told of this run again"
            )
        self._trouble = trouble
        state = Delivered(whole=whole, trouble=trouble)
        write_atomically(self._folder / state_file(self._service), state.model_dump_json())
