"""The conditions of a schedule, said anew each time; pure.

`Ready` is true while runs are made as the schedule says, and while a person has suspended it: Flux
and Argo CD take it for healthy then. `Reconciling` is never true: what there is to do for a
schedule is done in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmtrain_api.status import Condition
from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import format_time

MAX_MESSAGE = 2048


@dataclass(frozen=True)
class Said:
    """What is said of a schedule."""

    ready: Literal["True", "False"]
    reason: str
    message: str
    stalled: bool = False
    """Whether a person must act."""


def conditions(
    old: Sequence[Condition], said: Said, generation: int, now: float
) -> list[Condition]:
    """Returns all conditions; the time of one moves only when its status does."""
    known = {condition.type: condition for condition in old}

    def condition(
        type_: str, status: Literal["True", "False"], reason: str, message: str
    ) -> Condition:
        before = known.get(type_)
        same = before is not None and before.status == status
        return Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message[:MAX_MESSAGE],
            observed_generation=generation,
            last_transition_time=before.last_transition_time
            if before and same
            else format_time(now),
        )

    stalled = (
        condition("Stalled", "True", said.reason, said.message)
        if said.stalled
        else condition("Stalled", "False", Reason.NOT_STALLED, "")
    )
    return [
        condition("Ready", said.ready, said.reason, said.message),
        condition("Reconciling", "False", Reason.UP_TO_DATE, ""),
        stalled,
    ]
