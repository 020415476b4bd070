"""How often statuses are written: milestones at once, progress every few seconds per run.

Writes of progress share a budget: with more live runs than it allows, each run is written less
often, so that the API server bears the same load.
"""

from __future__ import annotations

from collections.abc import Callable

from llmtrain_operator.changes import Urgency

SOON_SECONDS = 4.0
"""Long enough for most pods to start in: then what was said meanwhile costs no write."""
BUSY_SECONDS = 15.0
"""The same while many runs are new: their Jobs come first."""


class Pace:
    """Remembers the last write of each run. `now` is a monotonic clock in seconds."""

    def __init__(
        self, interval_seconds: float, writes_per_second: float, now: Callable[[], float]
    ) -> None:
        self._interval = interval_seconds
        self._budget = writes_per_second
        self._now = now
        self._last: dict[str, float] = {}
        self.live_runs = 0
        """Runs that are going on; set by whoever counts them."""

    @property
    def interval(self) -> float:
        """Least seconds between two writes of one run's progress."""
        return max(self._interval, self.live_runs / self._budget)

    def wait(self, uid: str, urgency: Urgency, *, busy: bool = False) -> float:
        """Returns the seconds until a status of this urgency should be written; 0 for now.

        `busy` says that there are new runs, whose Jobs are to be made first.
        """
        last = self._last.get(uid)
        if last is None or urgency in (Urgency.NONE, Urgency.NOW):
            return 0.0
        gap = SOON_SECONDS if urgency is Urgency.SOON else self.interval
        if busy:
            gap = max(gap, BUSY_SECONDS)
        return max(0.0, last + gap - self._now())

    def wrote(self, uid: str) -> None:
        """Notes that the status of a run was written."""
        self._last[uid] = self._now()

    def forget_all_but(self, uids: set[str]) -> None:
        """Drops runs that are gone."""
        for uid in self._last.keys() - uids:
            del self._last[uid]
