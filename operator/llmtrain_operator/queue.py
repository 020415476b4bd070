"""The work queue: each key at most once, one worker per key, with delays and back-off.

Adding a key that waits already changes nothing; adding one that is being worked on makes it come
again afterwards. So a worker always sees the newest state, however many events there were.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0  # So that runs go on soon after the API server came back.


class WorkQueue(Generic[Key]):
    """Keys to work on.

    `now` is a monotonic clock in seconds; `jitter` returns a number between 0 and 1.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._now = now
        self._jitter = jitter
        self._first: dict[Key, None] = {}  # Both in the order of adding.
        self._ready: dict[Key, None] = {}
        self._last_first = float("-inf")
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, int, Key]] = []
        self._count = 0  # Breaks ties, so that keys need no order.
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Returns how many keys could be worked on now."""
        return len(self._first) + len(self._ready)

    def had_first(self, seconds: float) -> bool:
        """Returns whether a key that goes before others came within the last seconds."""
        return self._now() < self._last_first + seconds

    def add(self, key: Key, *, first: bool = False) -> None:
        """Makes `key` ready; with `first`, before all that were added without it."""
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif first:
            self._ready.pop(key, None)
            self._first[key] = None
            self._last_first = self._now()
        elif key not in self._first:
            self._ready[key] = None
        self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Makes `key` ready after a delay; of several delays the shortest counts."""
        due = self._now() + seconds
        if self._waits(key) or due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._timers, (due, self._count, key))
        if self._timers[0][2] == key:  # Else the waiting `get` wakes in time anyway.
            self._wake.set()

    def retry(self, key: Key) -> float:
        """Makes `key` ready after a delay that doubles with each failure; returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(failures, 20))
        delay *= 0.5 + self._jitter() / 2  # So that what failed together does not return together.
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Forgets the failures of `key`."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drops the timer and the failures of a key whose object is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Returns the next key, waiting for one; `done` must follow."""
        while True:
            self.promote()
            lane = self._first or self._ready
            if lane:
                key = next(iter(lane))
                del lane[key]
                self._running.add(key)
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(self._seconds_to_next_timer()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Ends the work on `key`; if it was added meanwhile, it is ready again."""
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def promote(self) -> None:
        """Makes the keys ready whose delay is over."""
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            due, _, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:  # Else a shorter delay or an `add` came first.
                self.add(key)

    def _waits(self, key: Key) -> bool:
        return key in self._first or key in self._ready

    def _seconds_to_next_timer(self) -> float | None:
        return max(0.0, self._timers[0][0] - self._now()) if self._timers else None
