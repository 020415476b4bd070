"""The order to stop: SIGTERM in a pod, Ctrl-C on a laptop. The first asks, the second ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import TypeVar

from llmtrain_api.errors import LLMTrainError
from llmtrain_api.exits import ExitClass

_T = TypeVar("_T")
_POLL_SECONDS = 0.1
_LAST_SECONDS = 5.0  # Kept back from the grace time for logs, report and verdict.


class StoppedError(LLMTrainError):
    """The order to stop came while nothing had been trained that was not saved."""

    exit_class = ExitClass.PREEMPTED


class Stop:
    """Whether this node has been told to stop, and how long it may take to obey."""

    def __init__(self, grace_seconds: float = 30.0) -> None:
        """Takes `grace_seconds`, Kubernetes' default until the run file says more."""
        self.grace_seconds = grace_seconds
        self._orders = 0
        self._first: float | None = None

    def listen(self) -> None:
        """Takes SIGTERM and SIGINT as the order from now on. Only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.order()

    def order(self) -> None:
        """Gives the order; a second one means at once."""
        self._orders += 1
        if self._first is None:
            self._first = time.monotonic()

    def at_once(self) -> None:
        """Gives the order to stop without saving anything."""
        self.order()
        self.order()

    @property
    def asked(self) -> bool:
        """Whether the order has been given."""
        return self._first is not None

    @property
    def seconds_left(self) -> float:
        """Seconds for saving and uploading; infinite before the order, 0 after a second one."""
        if self._first is None:
            return float("inf")
        if self._orders > 1:
            return 0.0
        last = min(_LAST_SECONDS, self.grace_seconds / 4)
        return max(0.0, self._first + self.grace_seconds - last - time.monotonic())

    def unless_asked(self, action: Callable[[], _T], meanwhile: Callable[[], None]) -> _T:
        """Does `action` in another thread and returns its result, unless the order comes first.

        Raises:
            StoppedError: The order came first; the action is left to end with the process.
        """
        future = in_background(action)
        while not future.done():
            if self.asked:
                raise StoppedError("told to stop before training began")
            meanwhile()
            time.sleep(_POLL_SECONDS)
        return future.result()

    def within_grace(self, action: Callable[[], _T], meanwhile: Callable[[], None]) -> _T:
        """Does `action` in another thread and returns its result, unless the grace time ends first.

        Raises:
            StoppedError: The grace time ended first.
        """
        future = in_background(action)
        while not future.done():
            if self.seconds_left <= 0:
                raise StoppedError("told to stop, and the grace time ended before all was uploaded")
            meanwhile()
            time.sleep(_POLL_SECONDS)
        return future.result()


def in_background(action: Callable[[], _T]) -> Future[_T]:
    """Starts `action` in a thread that does not keep the process alive."""
    future: Future[_T] = Future()

    def work() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
