"""What to do about a schedule: from a snapshot to a plan. Pure: no clock, no network, no kopf.

    plan_schedule ── the spec cannot be carried out, or it is suspended: make nothing
      └── the latest time that is due, if no run was made for it
            too late                     skip it
            refused by the API server    say so, try again after a while
            a run is not finished        Forbid: wait for its end │ Replace: delete it
            else                         make the run

A time counts once: its run's name says the time, and no time up to `lastScheduleTime`, up to the
newest run's or before `basis.since` is looked at again. Planning twice from the same cluster gives
the same plan, so a crash between any two writes neither doubles a run nor loses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmtrain_api.schedule import (
    MAX_ACTIVE_LISTED,
    ActiveRun,
    ScheduleSpec,
    ScheduleStatus,
)
from llmtrain_operator.reasons import ScheduleReason
from llmtrain_operator.schedule_children import run_name
from llmtrain_operator.schedule_conditions import Said, conditions
from llmtrain_operator.schedule_past import (
    MAX_COUNTED,
    baseline,
    with_basis,
    with_missed,
    with_runs,
    with_skipped,
)
from llmtrain_operator.schedule_snapshot import (
    RunRefusal,
    ScheduleSnapshot,
    ended_at,
    has_succeeded,
    is_finished,
)
from llmtrain_operator.snapshot import RunView, format_time, parse_time
from llmtrain_operator.timetable import Jitter, Timetable

LONGEST_WAIT_SECONDS = 600.0
"""However far the next time is: the clock may be set meanwhile."""


@dataclass(frozen=True)
class NewRun:
    """Make the run of a time."""

    name: str
    time: float
    """The time of the schedule, in seconds since 1970."""
    due: float
    """When it was to be made: the time with its delay."""


@dataclass(frozen=True)
class SchedulePlan:
    """What to do, in this order."""

    replace: tuple[RunView, ...] = ()
    """Runs to delete because the next one takes their place."""
    create: NewRun | None = None
    status: ScheduleStatus | None = None
    """The whole new status, which takes `create` for done; None leaves it as it is."""
    prune: tuple[RunView, ...] = ()
    """Finished runs beyond the history limits: they go when the status has told of them."""
    look_again: float | None = None
    """Seconds after which time alone may change the plan."""


@dataclass(frozen=True)
class _Due:
    """A time whose run is to be made now."""

    time: float
    at: float
    """The time with its delay."""
    previous: float | None
    """The time before it, if nothing was made at that either, nor told of it."""
    missed: int
    """How many such times there are before it, at most MAX_COUNTED."""


def plan_schedule(snapshot: ScheduleSnapshot) -> SchedulePlan:
    """Returns what to do about a schedule."""
    schedule, spec, now = snapshot.schedule, snapshot.spec, snapshot.now
    if schedule.deleting:
        return SchedulePlan()  # Its runs go with it, by their owner references.
    status = with_runs(schedule.read_status(), snapshot)
    if spec is None:
        said = Said("False", ScheduleReason.INVALID_SPEC, snapshot.refusal_of_spec, stalled=True)
        return SchedulePlan(status=_said(snapshot, status, said, None))
    status = with_basis(status, spec, schedule.created, now)
    prune = _beyond_history(snapshot.runs, spec)
    if spec.suspend:
        message = "spec.suspend is true: set it to false to have runs made again."
        said = Said("True", ScheduleReason.SUSPENDED, message)
        return SchedulePlan(status=_said(snapshot, status, said, None), prune=prune)
    timetable = Timetable(spec.schedule, spec.time_zone)
    jitter = Jitter(schedule.uid, spec.jitter_seconds)
    since = baseline(status)
    due = _find_due(timetable, jitter, since, status, now)
    upcoming = _find_next(timetable, jitter, due.time if due else since, now)
    todo = _decide(snapshot, spec, status, due)
    assert todo.status is not None  # `_decide` always says what is.
    refusal = _refusal_of(snapshot, due)
    if refusal is not None and todo.create is None:
        reason = ScheduleReason.RUN_REFUSED
        said = Said("False", reason, refusal.message, stalled=refusal.terminal)
    else:
        said = Said("True", ScheduleReason.SCHEDULED, "Runs are made as the schedule says.")
    waits = [LONGEST_WAIT_SECONDS, todo.look_again, upcoming and upcoming - now]
    return replace(
        todo,
        status=_said(snapshot, todo.status, said, upcoming),
        prune=prune,
        look_again=max(0.0, min(wait for wait in waits if wait is not None)),
    )


def _decide(
    snapshot: ScheduleSnapshot, spec: ScheduleSpec, status: ScheduleStatus, due: _Due | None
) -> SchedulePlan:
    """Returns what to do about the time that is due."""
    if due is None:
        return SchedulePlan(status=status)
    now, refusal = snapshot.now, _refusal_of(snapshot, due)
    active = [run for run in snapshot.runs if not is_finished(run)]
    deadline = spec.starting_deadline_seconds
    if due.previous is not None:
        status = with_missed(status, due.previous, due.missed)
    if deadline is not None and now > due.at + deadline:
        if not any(one.time == format_time(due.time) for one in status.skipped):
            why = f"no run could be made within {deadline} s (startingDeadlineSeconds)"
            status = with_skipped(status, due.time, ScheduleReason.TOO_LATE, why)
        return SchedulePlan(status=status)
    if refusal is not None and (refusal.terminal or now < refusal.retry_at):
        status = with_skipped(status, due.time, ScheduleReason.REFUSED, refusal.message)
        wait = None if refusal.terminal else refusal.retry_at - now
        return SchedulePlan(status=status, look_again=wait)
    if active and spec.concurrency_policy == "Forbid":
        why = f"run {active[-1].key.name} is not finished (concurrencyPolicy Forbid)"
        return SchedulePlan(status=with_skipped(status, due.time, ScheduleReason.RUN_ACTIVE, why))
    replaced = tuple(active) if spec.concurrency_policy == "Replace" else ()
    new = NewRun(run_name(snapshot.schedule.key.name, due.time), due.time, due.at)
    kept = [] if replaced else status.active
    made = ActiveRun(name=new.name, scheduled_time=format_time(due.time))
    status = status.model_copy(
        update={
            "last_schedule_time": format_time(due.time),
            "active": [*kept, made][-MAX_ACTIVE_LISTED:],
            "active_runs": len(active) - len(replaced) + 1,
            "skipped": [one for one in status.skipped if one.time != format_time(due.time)],
        }
    )
    going = tuple(run for run in replaced if not run.deleting)
    return SchedulePlan(replace=going, create=new, status=status)


def _find_due(
    timetable: Timetable, jitter: Jitter, since: float, status: ScheduleStatus, now: float
) -> _Due | None:
    time = timetable.latest(since, now, jitter)
    if time is None:
        return None
    told = [parse_time(one.time) or 0.0 for one in status.skipped]
    untold_since = max([since, *(moment for moment in told if moment < time)])
    missed = timetable.count(untold_since, time, MAX_COUNTED)
    previous = timetable.latest(untold_since, time - 1, Jitter("", 0)) if missed else None
    return _Due(time, time + jitter.of(time), previous, missed)


def _find_next(timetable: Timetable, jitter: Jitter, since: float, now: float) -> float | None:
    """Returns when the next run is due, with its delay, or None if never.

    A time that has come but whose delay is not over yet counts as well.
    """
    time = timetable.next(max(since, now - jitter.most - 1))
    while time is not None and time + jitter.of(time) <= now:
        time = timetable.next(time)
    return None if time is None else time + jitter.of(time)


def _refusal_of(snapshot: ScheduleSnapshot, due: _Due | None) -> RunRefusal | None:
    """Returns how the run of a time was refused, if the schedule is still what it was then."""
    refusal, generation = snapshot.refusal, snapshot.schedule.generation
    if refusal is None or due is None:
        return None
    return refusal if (refusal.time, refusal.generation) == (due.time, generation) else None


def _beyond_history(runs: Sequence[RunView], spec: ScheduleSpec) -> tuple[RunView, ...]:
    """Returns the finished runs that are more than the limits keep, oldest first."""
    finished = sorted((run for run in runs if is_finished(run)), key=ended_at)
    beyond = []
    for success, limit in (
        (True, spec.successful_runs_history_limit),
        (False, spec.failed_runs_history_limit),
    ):
        ended = [run for run in finished if has_succeeded(run) is success]
        beyond += ended[: max(0, len(ended) - limit)]
    return tuple(run for run in beyond if not run.deleting)


def _said(
    snapshot: ScheduleSnapshot, status: ScheduleStatus, said: Said, upcoming: float | None
) -> ScheduleStatus:
    generation = snapshot.schedule.generation
    return status.model_copy(
        update={
            "observed_generation": generation,
            "next_schedule_time": None if upcoming is None else format_time(upcoming),
            "conditions": conditions(status.conditions, said, generation, snapshot.now),
        }
    )
