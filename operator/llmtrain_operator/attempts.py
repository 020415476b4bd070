"""The attempts of a run as its status keeps them: starting one, ending one, how many, how soon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmtrain_api.preparing import Task
from llmtrain_api.progress import Resolved
from llmtrain_api.status import (
    MAX_ATTEMPTS_KEPT,
    Attempt,
    ConditionType,
    Failure,
    Phase,
    RunProgress,
    RunStatus,
)
from llmtrain_operator.children import job_name, task_of
from llmtrain_operator.snapshot import JobView, PodView, format_time, parse_time

SUSPENDED = "Suspended"
"""Outcome of an attempt that ended because of `spec.suspend`."""
PREPARED = "Prepared"
"""Outcome of an attempt that has made the tokens."""
NO_FAILURES = (SUSPENDED, PREPARED)
LONGEST_RESTART_DELAY_SECONDS = 300.0
FAILURES_KEPT = 5
OLD_MESSAGE = 256
"""Letters that stay of the message of a failure that is not the newest."""


def next_number(status: RunStatus, jobs: Sequence[JobView], pods: Sequence[PodView]) -> int:
    """Returns the number of a new attempt: one that no status, Job or pod of the run has used."""
    used = [status.attempt or 0, *(job.attempt for job in jobs), *(pod.attempt for pod in pods)]
    return max(used) + 1


def start(
    status: RunStatus,
    run: str,
    number: int,
    *,
    image: str,
    retry: int,
    now: float,
    task: Task = "Train",
) -> RunStatus:
    """Returns `status` with a new attempt written down."""
    attempt = Attempt(
        number=number,
        job=job_name(run, number, task),
        task=task,
        start_time=format_time(now),
        retry=retry,
        image=image,
    )
    resolved = (status.resolved or Resolved()).model_copy(update={"image": image})
    return status.model_copy(
        update={
            "attempt": number,
            "attempts": [*status.attempts, attempt][-MAX_ATTEMPTS_KEPT:],
            "restarts": status.restarts or 0,
            "start_time": status.start_time or format_time(now),
            "resolved": resolved,
            "progress": idle(status.progress),
        }
    )


def recovered(status: RunStatus, jobs: Sequence[JobView], retry: int) -> RunStatus:
    """Returns `status` with the attempt of the newest Job, if it is missing there.

    A status can be lost, as when a run is restored from a backup; its Jobs tell where it was.
    """
    newest = max(jobs, key=lambda job: job.attempt, default=None)
    if newest is None or newest.attempt <= (status.attempt or 0):
        return status
    attempt = Attempt(
        number=newest.attempt,
        job=newest.name,
        task=task_of(newest),
        job_uid=newest.uid,
        start_time=format_time(newest.created),
        retry=retry,
    )
    return status.model_copy(
        update={
            "attempt": newest.attempt,
            "attempts": [*status.attempts, attempt][-MAX_ATTEMPTS_KEPT:],
            "restarts": status.restarts or 0,
            "start_time": status.start_time or attempt.start_time,
        }
    )


def with_latest(status: RunStatus, **changes: Any) -> RunStatus:
    """Returns `status` with fields of its latest attempt changed."""
    latest = status.attempts[-1].model_copy(update=changes)
    return status.model_copy(update={"attempts": [*status.attempts[:-1], latest]})


def end(
    status: RunStatus, outcome: str, now: float, *, failure: Failure | None = None, counts: bool
) -> RunStatus:
    """Returns `status` with its latest attempt over; `counts` uses up one of the restarts."""
    status = with_latest(
        status, outcome=outcome, end_time=format_time(now), failure=failure, counts=counts
    )
    return status.model_copy(
        update={
            "attempts": _with_bounded_failures(status.attempts),
            "restarts": (status.restarts or 0) + counts,
            "progress": idle(status.progress),
        }
    )


def with_retry(status: RunStatus, retry: int) -> RunStatus:
    """Returns `status` with all restarts given back, if `spec.retry` was raised since.

    While an attempt is going on that is all it means; a failed run starts anew.
    """
    if not status.attempts or status.attempts[-1].retry >= retry:
        return status
    if status.attempts[-1].outcome is None:
        status = with_latest(status, retry=retry)
    return status.model_copy(update={"restarts": 0})


def anew(status: RunStatus) -> RunStatus:
    """Returns the status of a finished run that is tried again."""
    status = status.model_copy(update={"completion_time": None})
    if status.attempts:
        return status
    # It never started: what it waited for then is no part of how long it waits now.
    conditions_left = [c for c in status.conditions if c.type != ConditionType.ACCEPTED]
    return status.model_copy(update={"conditions": conditions_left})


_OF_THE_MOMENT = (
    *("activity", "message", "eta"),
    *("tokens_per_second", "tokens_per_second_per_device", "mfu", "data_wait"),
)


def prepared(status: RunStatus, now: float) -> RunStatus:
    """Returns `status` with its latest attempt over, which has made the tokens."""
    return end(status, PREPARED, now, counts=False).model_copy(update={"prepared": True})


def start_timed_out(attempt: Attempt, seconds: float, now: float) -> bool:
    """Returns whether an attempt should have started long ago."""
    return now >= (parse_time(attempt.start_time) or now) + seconds


def phase_of_start(status: RunStatus) -> Phase:
    """Returns the phase of an attempt whose pods do not all run."""
    latest, earlier = status.attempts[-1], status.attempts[:-1]
    if latest.task == "Prepare":
        return Phase.PREPARING
    if latest.running_time is not None:
        return Phase.RUNNING
    goes_on = earlier and earlier[-1].retry == latest.retry
    failed_before = goes_on and earlier[-1].outcome not in NO_FAILURES
    return Phase.RESTARTING if failed_before else Phase.STARTING


def idle(progress: RunProgress | None) -> RunProgress | None:
    """Returns the progress of a run that does not train at the moment."""
    if progress is None:
        return None
    return progress.model_copy(update=dict.fromkeys(_OF_THE_MOMENT))


def next_start(status: RunStatus, retry: int, base_delay: float) -> float:
    """Returns when the next attempt is due, in seconds since 1970; 0 if at once.

    The delay doubles with each attempt that got no further than the one before it. `retry` is
    `spec.retry`: raising it starts anew.
    """
    series = [attempt for attempt in status.attempts if attempt.retry == retry]
    if not series or series[-1].outcome in NO_FAILURES:
        return 0.0
    ended = parse_time(series[-1].end_time) or 0.0
    fruitless = _fruitless(series)
    return ended + min(LONGEST_RESTART_DELAY_SECONDS, base_delay * 2.0 ** max(0, fruitless - 1))


def _fruitless(attempts: Sequence[Attempt]) -> int:
    """Returns how many of the newest attempts failed without getting further than those before."""
    furthest, fruitless = 0, 0
    for attempt in attempts:
        if attempt.outcome in NO_FAILURES:
            continue
        step = (attempt.failure.step if attempt.failure else None) or 0
        fruitless = 0 if step > furthest else fruitless + 1
        furthest = max(furthest, step)
    return fruitless


def _with_bounded_failures(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Returns the attempts with the newest failure whole, four more in short, and no older one."""
    kept: list[Attempt] = []
    seen = 0
    for attempt in reversed(attempts):
        failure = attempt.failure
        if failure is not None:
            seen += 1
        if failure is None or seen == 1:
            kept.append(attempt)
            continue
        short = _shortened(failure) if seen <= FAILURES_KEPT else None
        kept.append(attempt.model_copy(update={"failure": short}))
    return kept[::-1]


def _shortened(failure: Failure) -> Failure:
    return failure.model_copy(update={"message": failure.message[:OLD_MESSAGE], "last_lines": []})
