"""The conditions of a run in each situation it can be in: all seven, said anew each time; pure.

kstatus (Flux, `kubectl wait`, Argo's health check) reads them: `Reconciling` is true only while the
operator itself has work to do, `Stalled` only when a person must act, and there is no `Ready`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from llmtrain_api.status import Condition, ConditionType, Phase
from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import format_time

MAX_MESSAGE = 2048
MAX_REASON = 64


class Said(NamedTuple):
    """What is said of one aspect."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


_ACCEPTED = Said("True", Reason.ACCEPTED, "The spec can be carried out.")
_NOT_SUSPENDED = Said("False", Reason.NOT_SUSPENDED)
_UP_TO_DATE = Said("False", Reason.UP_TO_DATE)
_NOT_STALLED = Said("False", Reason.NOT_STALLED)
_GOES_ON = Said("Unknown", Reason.NOT_FINISHED, "The run is not finished.")
_NOT_FINISHED = Said("False", Reason.NOT_FINISHED)


@dataclass(frozen=True)
class Verdict:
    """What is said of a run in one situation. The defaults are those of a run that goes on."""

    phase: Phase
    workers_ready: Said
    accepted: Said = _ACCEPTED
    suspended: Said = _NOT_SUSPENDED
    reconciling: Said = _UP_TO_DATE
    stalled: Said = _NOT_STALLED
    succeeded: Said = _GOES_ON
    finished: Said = _NOT_FINISHED

    def conditions(self, old: Sequence[Condition], generation: int, now: float) -> list[Condition]:
        """Returns all conditions; the time of one moves only when its status does."""
        said = {
            ConditionType.ACCEPTED: self.accepted,
            ConditionType.WORKERS_READY: self.workers_ready,
            ConditionType.SUSPENDED: self.suspended,
            ConditionType.RECONCILING: self.reconciling,
            ConditionType.STALLED: self.stalled,
            ConditionType.SUCCEEDED: self.succeeded,
            ConditionType.FINISHED: self.finished,
        }
        known = {condition.type: condition for condition in old}
        return [
            _condition(type_, what, known.get(type_), generation, now)
            for type_, what in said.items()
        ]


def not_accepted(
    old: Sequence[Condition], message: str, generation: int, now: float
) -> list[Condition]:
    """Returns the conditions of a run that is left to itself: `Accepted` is all that changes."""
    said = Said("False", Reason.INVALID_SPEC, message)
    return [
        _condition(ConditionType.ACCEPTED, said, known, generation, now)
        if known.type == ConditionType.ACCEPTED
        else known
        for known in old
    ]


def _condition(
    type_: ConditionType, said: Said, old: Condition | None, generation: int, now: float
) -> Condition:
    same = old is not None and old.status == said.status
    return Condition(
        type=type_.value,
        status=said.status,
        reason=said.reason[:MAX_REASON],  # The cluster's own words may be longer.
        message=said.message[:MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and same else format_time(now),
    )


def pending(phase: Phase, job: str) -> Verdict:
    """The attempt is written down, its children are being made."""
    return Verdict(
        phase,
        workers_ready=Said("False", Reason.PENDING, f"Job {job} is being created."),
        reconciling=Said("True", Reason.CREATING_WORKERS, f"Creating Job {job}."),
    )


def waiting_for_run(reason: Reason, message: str) -> Verdict:
    """A run that this one starts from has not succeeded; nothing is made meanwhile."""
    verdict = Verdict(Phase.PENDING, workers_ready=Said("False", reason, message))
    if reason is Reason.WAITING_FOR_RUN:
        return verdict
    verdict = replace(verdict, accepted=Said("False", reason, message))
    if reason is Reason.RUN_NOT_FOUND:  # It may be on its way.
        return verdict
    return replace(verdict, stalled=Said("True", reason, message))


def held_up(phase: Phase, reason: str, message: str) -> Verdict:
    """A child cannot be made now: quota, a policy, a taken name; others have to act."""
    return Verdict(phase, workers_ready=Said("False", reason, message))


def starting(phase: Phase, reason: str, message: str) -> Verdict:
    """The Job is there; not all of its pods run yet."""
    return Verdict(phase, workers_ready=Said("False", reason, message))


def running(nodes: int) -> Verdict:
    """All pods run."""
    return Verdict(
        Phase.RUNNING,
        workers_ready=Said("True", Reason.ALL_RUNNING, f"{nodes} of {nodes} pods are running."),
    )


def preparing(job: str) -> Verdict:
    """A Job of its own makes the tokens; the gang starts after it."""
    message = f"Job {job} turns rows into tokens; the workers start after it."
    return Verdict(Phase.PREPARING, workers_ready=Said("False", Reason.PREPARING, message))


def stopping(phase: Phase, message: str, *, suspending: bool) -> Verdict:
    """The attempt is over, or is to be; its last pods are stopping."""
    verdict = Verdict(
        phase,
        workers_ready=Said("False", Reason.STOPPING, message),
        reconciling=Said("True", Reason.STOPPING_WORKERS, message),
    )
    if suspending:
        said = Said("False", Reason.SUSPENDING, "The pods save a checkpoint and stop.")
        return replace(verdict, suspended=said)
    return verdict


def backing_off(message: str) -> Verdict:
    """An attempt failed; the next one starts after a delay."""
    return Verdict(
        Phase.RESTARTING,
        workers_ready=Said("False", Reason.BACK_OFF, message),
        reconciling=Said("True", Reason.WAITING_TO_RESTART, message),
    )


def suspended() -> Verdict:
    """Nothing runs, as the user wishes."""
    message = "spec.suspend is true: set it to false to go on."
    return Verdict(
        Phase.SUSPENDED,
        workers_ready=Said("False", Reason.SUSPENDED, "No pods while the run is suspended."),
        suspended=Said("True", Reason.SUSPENDED, message),
    )


def succeeded(message: str) -> Verdict:
    """The model is in storage."""
    return Verdict(
        Phase.SUCCEEDED,
        workers_ready=Said("False", Reason.ENDED, "The pods have done their work."),
        succeeded=Said("True", Reason.SUCCEEDED, message),
        finished=Said("True", Reason.SUCCEEDED, message),
    )


def failed(reason: str, message: str, *, accepted: bool = True) -> Verdict:
    """The run ended without a model, or could not be carried out at all."""
    verdict = Verdict(
        Phase.FAILED,
        workers_ready=Said("False", Reason.ENDED, "No pods run any more."),
        stalled=Said("True", reason, message),
        succeeded=Said("False", reason, message),
        finished=Said("True", reason, message),
    )
    if not accepted:
        return replace(verdict, accepted=Said("False", Reason.INVALID_SPEC, message))
    return verdict
