"""What the status of a schedule says of the past: made, missed and skipped times; pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmtrain_api.schedule import (
    MAX_ACTIVE_LISTED,
    MAX_SKIPPED_KEPT,
    ActiveRun,
    Basis,
    ScheduleSpec,
    ScheduleStatus,
    SkippedTime,
)
from llmtrain_operator.reasons import ScheduleReason
from llmtrain_operator.schedule_snapshot import (
    ScheduleSnapshot,
    ended_at,
    has_succeeded,
    is_finished,
    time_of,
)
from llmtrain_operator.snapshot import format_time, parse_time

MAX_COUNTED = 100
"""Missed times are counted up to this number."""


def baseline(status: ScheduleStatus) -> float:
    """Returns the time up to which nothing is to be made any more."""
    assert status.basis is not None  # `with_basis` has set it.
    since = parse_time(status.basis.since) or 0.0
    return max(since, parse_time(status.last_schedule_time) or 0.0)


def with_basis(
    status: ScheduleStatus, spec: ScheduleSpec, created: float, now: float
) -> ScheduleStatus:
    """Returns `status` with what times are reckoned by: a change of it never works backward.

    Nor does lifting `suspend`: what passed meanwhile was not wanted.
    """
    known = status.basis
    seen = (spec.schedule, spec.time_zone, spec.suspend)
    if known is not None and (known.schedule, known.time_zone, known.suspend) == seen:
        return status
    # The first time that it is seen, its times count from when it was made.
    since = created if known is None else now
    basis = Basis(
        schedule=spec.schedule,
        time_zone=spec.time_zone,
        suspend=spec.suspend,
        since=format_time(since),
    )
    return status.model_copy(update={"basis": basis})


def with_runs(status: ScheduleStatus, snapshot: ScheduleSnapshot) -> ScheduleStatus:
    """Returns `status` with what the runs that are there tell.

    The newest run's time counts as made, also where a crash or a lost status does not say so.
    """
    name, runs = snapshot.schedule.key.name, snapshot.runs
    active = [
        ActiveRun(name=run.key.name, scheduled_time=_format(time_of(run, name)))
        for run in runs
        if not is_finished(run)
    ]
    made = [time for run in runs if (time := time_of(run, name)) is not None]
    succeeded = [ended_at(run) for run in runs if has_succeeded(run)]
    return status.model_copy(
        update={
            "skipped": [one for one in status.skipped if parse_time(one.time) not in made],
            "active": active[-MAX_ACTIVE_LISTED:],
            "active_runs": len(active),
            "last_schedule_time": _latest(status.last_schedule_time, made),
            "last_successful_time": _latest(status.last_successful_time, succeeded),
        }
    )


def _latest(known: str | None, found: Sequence[float]) -> str | None:
    times = [*found, *([parse_time(known) or 0.0] if known else [])]
    return format_time(max(times)) if times else None


def _format(time: float | None) -> str | None:
    return None if time is None else format_time(time)


def with_missed(status: ScheduleStatus, newest: float, number: int) -> ScheduleStatus:
    """Returns `status` with so many missed times, of which only the newest is named."""
    others = number - 1
    count = f"more than {MAX_COUNTED}" if number == MAX_COUNTED else str(others)
    why = "it passed without a run, and only the latest time is made up for" + (
        f"; so did {count} before it" if others else ""
    )
    return with_skipped(status, newest, ScheduleReason.MISSED, why)


def with_skipped(status: ScheduleStatus, time: float, reason: str, message: str) -> ScheduleStatus:
    """Returns `status` with a time at which no run was made, and why."""
    skipped = SkippedTime(time=format_time(time), reason=reason, message=message[:512])
    others = [one for one in status.skipped if one.time != skipped.time]
    newest = sorted([skipped, *others], key=lambda one: one.time, reverse=True)
    return status.model_copy(update={"skipped": newest[:MAX_SKIPPED_KEPT]})
