"""How soon a status is written, what is told of it, and the patch that is sent."""

from __future__ import annotations

from typing import Any

import pytest

from llmtrain_api.status import Attempt, Condition, Failure, Phase, RunProgress, RunStatus
from llmtrain_operator.changes import Urgency, tell, urgency
from llmtrain_operator.pace import BUSY_SECONDS, SOON_SECONDS, Pace
from llmtrain_operator.patching import merge_patch

TIME = "2027-01-15T08:00:00Z"
ATTEMPT = Attempt(number=1, job="one-a1", start_time=TIME)


def ready(status: Any, reason: str, message: str = "") -> Condition:
    return Condition(
        type="WorkersReady",
        status=status,
        reason=reason,
        message=message,
        last_transition_time=TIME,
    )


STARTING = RunStatus(
    observed_generation=1,
    phase=Phase.STARTING,
    attempt=1,
    attempts=[ATTEMPT],
    conditions=[ready("False", "Starting", "0 of 2")],
)


def changed(**fields: Any) -> RunStatus:
    return STARTING.model_copy(update=fields)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        pytest.param(STARTING, Urgency.NONE, id="nothing is new"),
        pytest.param(changed(progress=RunProgress(step=1)), Urgency.LATER, id="progress"),
        pytest.param(
            changed(conditions=[ready("False", "Starting", "1 of 2")]),
            Urgency.LATER,
            id="the words of a condition",
        ),
        pytest.param(
            changed(conditions=[ready("False", "Unschedulable")]),
            Urgency.SOON,
            id="the reason of a condition",
        ),
        pytest.param(
            changed(attempts=[ATTEMPT.model_copy(update={"job_uid": "x"})]),
            Urgency.SOON,
            id="the Job was seen",
        ),
        pytest.param(changed(phase=Phase.RUNNING), Urgency.NOW, id="the phase"),
        pytest.param(changed(observed_generation=2), Urgency.NOW, id="the spec was seen"),
        pytest.param(
            changed(attempts=[ATTEMPT.model_copy(update={"outcome": "Hang"})]),
            Urgency.NOW,
            id="an attempt is over",
        ),
        pytest.param(changed(attempts=[]), Urgency.NOW, id="an attempt more or less"),
    ],
)
def test_urgency(new: RunStatus, expected: Urgency) -> None:
    assert urgency(STARTING, new) is expected


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_milestones_are_written_at_once_and_progress_every_few_seconds() -> None:
    clock = Clock()
    pace = Pace(10.0, 5.0, clock)
    assert pace.wait("a", Urgency.LATER) == 0, "the first write is due"
    pace.wrote("a")
    assert pace.wait("a", Urgency.NOW) == 0
    assert pace.wait("a", Urgency.SOON) == SOON_SECONDS
    assert pace.wait("a", Urgency.LATER) == 10
    clock.now += 9
    assert pace.wait("a", Urgency.LATER) == 1
    clock.now += 5
    assert pace.wait("a", Urgency.LATER) == 0
    assert pace.wait("b", Urgency.LATER) == 0, "each run has its own"


def test_all_but_milestones_wait_a_while_for_new_runs() -> None:
    clock = Clock()
    pace = Pace(10.0, 5.0, clock)
    pace.wrote("a")
    assert pace.wait("a", Urgency.NOW, busy=True) == 0
    assert pace.wait("a", Urgency.SOON, busy=True) == BUSY_SECONDS
    assert pace.wait("a", Urgency.LATER, busy=True) == BUSY_SECONDS
    clock.now += BUSY_SECONDS
    assert pace.wait("a", Urgency.SOON, busy=True) == 0, "but not for ever"


def test_many_runs_share_the_budget_of_writes() -> None:
    pace = Pace(10.0, 5.0, Clock())
    pace.live_runs = 50
    assert pace.interval == 10
    pace.live_runs = 500
    assert pace.interval == 100, "500 runs at 5 writes a second"


def test_runs_that_are_gone_are_forgotten() -> None:
    pace = Pace(10.0, 5.0, Clock())
    pace.wrote("a")
    pace.forget_all_but(set())
    assert pace.wait("a", Urgency.LATER) == 0


FAILURE = Failure(exit_class="Hang", message="stuck", node=1)


@pytest.mark.parametrize(
    ("old", "new", "reasons"),
    [
        pytest.param(STARTING, STARTING, [], id="nothing happened"),
        pytest.param(
            RunStatus(), STARTING, ["AttemptStarted"], id="a new run tells of its attempt only"
        ),
        pytest.param(
            STARTING,
            changed(conditions=[ready("True", "AllRunning")], phase=Phase.RUNNING),
            ["WorkersRunning"],
            id="all pods run",
        ),
        pytest.param(
            STARTING,
            changed(conditions=[ready("False", "Unschedulable", "no node")]),
            ["WorkersNotReady"],
            id="something is in the way",
        ),
        pytest.param(
            changed(conditions=[ready("False", "Unschedulable", "no node")]),
            changed(conditions=[ready("False", "Unschedulable", "still no node")]),
            [],
            id="only the words are new",
        ),
        pytest.param(
            STARTING,
            changed(attempts=[ATTEMPT.model_copy(update={"outcome": "Hang", "failure": FAILURE})]),
            ["AttemptFailed"],
            id="an attempt failed",
        ),
        pytest.param(
            STARTING,
            changed(attempts=[ATTEMPT.model_copy(update={"outcome": "Suspended"})]),
            ["Suspended"],
            id="an attempt was suspended",
        ),
        pytest.param(
            STARTING,
            changed(latest_checkpoint="10-a1r0"),
            ["CheckpointSaved"],
            id="a checkpoint was saved",
        ),
        pytest.param(STARTING, changed(phase=Phase.SUCCEEDED), ["Succeeded"], id="success"),
        pytest.param(STARTING, changed(phase=Phase.FAILED), ["Failed"], id="failure"),
        pytest.param(
            RunStatus(), RunStatus(phase=Phase.FAILED), ["Refused"], id="a spec that cannot work"
        ),
        pytest.param(STARTING, changed(progress=RunProgress(step=1)), [], id="never for a step"),
    ],
)
def test_events(old: RunStatus, new: RunStatus, reasons: list[str]) -> None:
    assert [str(told.reason) for told in tell(old, new)] == reasons


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        pytest.param({"a": 1}, {"a": 1}, {}, id="nothing"),
        pytest.param({}, {"a": 1}, {"a": 1}, id="a new field"),
        pytest.param({"a": 1}, {}, {"a": None}, id="a field that went"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, {"a": [1]}, id="lists go whole"),
        pytest.param(
            {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}, id="a field inside"
        ),
        pytest.param({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}, id="a field inside that went"),
        pytest.param({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="a value becomes an object"),
        pytest.param({"a": 0}, {"a": False}, {}, id="equal values"),
    ],
)
def test_merge_patch(old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(old, new) == patch
