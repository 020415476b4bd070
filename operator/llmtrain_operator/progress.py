"""The newest report of each run, in memory: what the progress endpoint puts and a plan reads.

After a restart of the operator the book is empty; the status keeps the numbers until the trainer
reports again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmtrain_api.progress import Report
from llmtrain_operator.reporting import merged
from llmtrain_operator.snapshot import RunKey


@dataclass(frozen=True)
class Entry:
    """What a run reported last, and when the operator heard of it, in seconds since 1970."""

    report: Report
    heard_at: float


class ProgressBook:
    """Reports by run UID. `changed` is called with the run whose report is new."""

    def __init__(self, changed: Callable[[RunKey], None]) -> None:
        self._changed = changed
        self._entries: dict[str, Entry] = {}

    def put(self, run: RunKey, uid: str, report: Report, now: float) -> None:
        """Takes up a report; one of an attempt that is over already is dropped."""
        known = self._entries.get(uid)
        if known is not None and known.report.attempt > report.attempt:
            return
        if known is not None and known.report.attempt == report.attempt:
            report = _joined(known.report, report)
        self._entries[uid] = Entry(report, now)
        self._changed(run)

    def get(self, uid: str) -> Entry | None:
        """Returns what the run of this UID reported last."""
        return self._entries.get(uid)

    def forget_all_but(self, uids: set[str]) -> None:
        """Drops the reports of runs that are gone."""
        for uid in self._entries.keys() - uids:
            del self._entries[uid]


def _joined(old: Report, new: Report) -> Report:
    """Returns `new` with what only `old` says: reports name what changed, not all there is."""
    resolved, artifacts = new.resolved, new.artifacts
    if old.resolved is not None and resolved is not None:
        resolved = merged(old.resolved, resolved)
    if old.artifacts is not None and artifacts is not None:
        artifacts = merged(old.artifacts, artifacts)
    return new.model_copy(
        update={
            "progress": new.progress or old.progress,
            "checkpoints": new.checkpoints or old.checkpoints,
            "resolved": resolved or old.resolved,
            "artifacts": artifacts or old.artifacts,
        }
    )
