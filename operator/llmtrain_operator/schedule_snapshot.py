"""What the operator looks at before it decides about a schedule. Times are seconds since 1970."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from llmtrain_api.schedule import ScheduleSpec, ScheduleStatus
from llmtrain_api.status import ConditionType, Phase
from llmtrain_operator.snapshot import Object, RunView, parse_time
from llmtrain_operator.timetable import MINUTE


class ScheduleKey(NamedTuple):
    """Names a schedule."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """An LLMTrainSchedule."""

    key: ScheduleKey
    uid: str
    generation: int
    version: int
    created: float
    deleting: bool
    spec: Object
    status: Object

    @property
    def kind(self) -> str:
        """The kind of the object, for Events and logs."""
        return "LLMTrainSchedule"

    def read_status(self) -> ScheduleStatus:
        """Returns the status without fields that only a newer operator knows, as after a rollback.

        Raises:
            ValidationError: Somebody else has written it.
        """
        return ScheduleStatus.model_validate(self.status, extra="ignore")


@dataclass(frozen=True, slots=True)
class RunRefusal:
    """A run that the API server did not take."""

    time: float
    """The time that the run was for."""
    generation: int
    """`metadata.generation` of the schedule then."""
    message: str
    terminal: bool
    """Whether trying again cannot help until the schedule is changed."""
    retry_at: float
    tries: int = 1


@dataclass(frozen=True)
class ScheduleSnapshot:
    """All that a plan for a schedule is made of."""

    schedule: ScheduleView
    spec: ScheduleSpec | None
    """The accepted spec; None if it cannot be carried out."""
    refusal_of_spec: str
    """Why it cannot, and the way out."""
    now: float
    runs: tuple[RunView, ...] = ()
    """The runs that the schedule owns, oldest first."""
    refusal: RunRefusal | None = None
    """Set while the API server does not take the run of a time."""


def schedule_view(body: Object) -> ScheduleView:
    """Returns the view of an LLMTrainSchedule as the API server sends it."""
    metadata = body["metadata"]
    return ScheduleView(
        key=ScheduleKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        version=int(metadata["resourceVersion"]),
        created=parse_time(metadata["creationTimestamp"]) or 0.0,
        deleting="deletionTimestamp" in metadata,
        spec=body.get("spec") or {},
        status=body.get("status") or {},
    )


def schedule_of(run: Object) -> ScheduleKey | None:
    """Returns the schedule that owns a run, as the API server sends it; None if none does."""
    metadata = run["metadata"]
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller") and owner.get("kind") == "LLMTrainSchedule":
            return ScheduleKey(metadata["namespace"], owner["name"])
    return None


def time_of(run: RunView, schedule: str) -> float | None:
    """Returns the time that a run was made for: its name says it. None if a person made the run."""
    found = re.fullmatch(rf"{re.escape(schedule)}-(\d+)", run.key.name)
    return int(found[1]) * MINUTE if found else None


def is_finished(run: RunView) -> bool:
    """Returns whether a run is over, either way."""
    return any(
        condition["type"] == ConditionType.FINISHED and condition["status"] == "True"
        for condition in run.status.get("conditions") or []
    )


def has_succeeded(run: RunView) -> bool:
    """Returns whether a run is over and its model in storage."""
    return run.status.get("phase") == Phase.SUCCEEDED and is_finished(run)


def ended_at(run: RunView) -> float:
    """Returns when a finished run was over."""
    return parse_time(run.status.get("completionTime")) or run.created
