"""What is new between two statuses of a run: how urgent it is to write, and what to tell; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from llmtrain_api.status import ConditionType, Phase, RunStatus
from llmtrain_operator.attempts import SUSPENDED
from llmtrain_operator.diagnosis import describe
from llmtrain_operator.reasons import EventReason, Reason
from llmtrain_operator.snapshot import Object

QUIET_REASONS = (
    Reason.PENDING,
    Reason.PREPARING,
    Reason.STARTING,
    Reason.STOPPING,
    Reason.BACK_OFF,
    Reason.WAITING_FOR_RUN,
    Reason.RUN_NOT_FOUND,  # The runs of a chain may be applied in any order.
)
"""Reasons of `WorkersReady=False` that are the usual course of things."""


class Urgency(IntEnum):
    """How soon a status should be written."""

    NONE = 0
    LATER = 1
    """Progress: when the interval is over."""
    SOON = 2
    """A condition: a few seconds after the last write, so that several changes become one."""
    NOW = 3
    """Phase, attempts, the generation."""


@dataclass(frozen=True)
class Told:
    """An Event on a run. `about` tells Events of one reason apart; equal ones are counted up."""

    reason: EventReason
    message: str
    warning: bool = False
    about: str = ""


def urgency(old: RunStatus, new: RunStatus) -> Urgency:
    """Returns how soon `new` should replace `old`."""
    if old == new:
        return Urgency.NONE
    if _milestones(old) != _milestones(new):
        return Urgency.NOW
    if _states(old) != _states(new):
        return Urgency.SOON
    return Urgency.LATER


def _milestones(status: RunStatus) -> Object:
    return {
        "phase": status.phase,
        "generation": status.observed_generation,
        "attempts": [(attempt.number, attempt.outcome) for attempt in status.attempts],
    }


def _states(status: RunStatus) -> Object:
    return {
        "conditions": [(c.type, c.status, c.reason) for c in status.conditions],
        "jobs": [attempt.job_uid for attempt in status.attempts],
    }


def tell(old: RunStatus, new: RunStatus) -> list[Told]:
    """Returns the Events of the way from `old` to `new`."""
    told = [*_told_of_attempts(old, new), *_told_of_workers(old, new)]
    if new.latest_checkpoint and new.latest_checkpoint != old.latest_checkpoint:
        message = f"Checkpoint {new.latest_checkpoint} is saved."
        told.append(Told(EventReason.CHECKPOINT_SAVED, message, about=f"a{new.attempt}"))
    if old.phase != new.phase:
        told += _told_of_phase(old, new)
    return told


def _told_of_attempts(old: RunStatus, new: RunStatus) -> list[Told]:
    told = []
    known = {attempt.number: attempt for attempt in old.attempts}
    for attempt in new.attempts:
        before = known.get(attempt.number)
        about = f"a{attempt.number}"
        if before is None:
            message = f"Attempt {attempt.number} starts as Job {attempt.job}."
            told.append(Told(EventReason.ATTEMPT_STARTED, message, about=about))
        was_open = before is None or before.outcome is None
        if was_open and attempt.failure is not None:
            message = describe(attempt.number, attempt.failure)
            told.append(Told(EventReason.ATTEMPT_FAILED, message, warning=True, about=about))
        elif was_open and attempt.outcome == SUSPENDED:
            message = f"Attempt {attempt.number} is stopped, as spec.suspend says."
            told.append(Told(EventReason.SUSPENDED, message, about=about))
    return told


def _told_of_workers(old: RunStatus, new: RunStatus) -> list[Told]:
    before, now = _workers_ready(old), _workers_ready(new)
    if now is None or now == before:
        return []
    status, reason, message = now
    about = f"a{new.attempt}"
    if status == "True":
        return [Told(EventReason.WORKERS_RUNNING, message, about=about)]
    if (
        new.phase in (Phase.PENDING, Phase.PREPARING, Phase.STARTING, Phase.RESTARTING)
        and reason not in QUIET_REASONS
    ):
        if before is not None and before[:2] == now[:2]:
            return []  # Only the words are new.
        text = f"{reason}: {message}"
        return [Told(EventReason.WORKERS_NOT_READY, text, warning=True, about=f"{about}-{reason}")]
    return []


def _workers_ready(status: RunStatus) -> tuple[str, str, str] | None:
    for condition in status.conditions:
        if condition.type == ConditionType.WORKERS_READY:
            return condition.status, condition.reason, condition.message
    return None


def _told_of_phase(old: RunStatus, new: RunStatus) -> list[Told]:
    said = next((c for c in new.conditions if c.type == ConditionType.FINISHED), None)
    message = said.message if said else ""
    if old.phase is Phase.SUSPENDED and new.phase not in (Phase.SUCCEEDED, Phase.FAILED):
        goes_on = "The run goes on, as spec.suspend is false."
        return [Told(EventReason.RESUMED, goes_on, about=f"a{new.attempt}")]
    if new.phase is Phase.SUCCEEDED:
        return [Told(EventReason.SUCCEEDED, message)]
    if new.phase is Phase.FAILED and not new.attempts:
        return [
            Told(EventReason.REFUSED, message, warning=True, about=str(new.observed_generation))
        ]
    if new.phase is Phase.FAILED:
        return [Told(EventReason.FAILED, message, warning=True, about=f"a{new.attempt}")]
    return []
