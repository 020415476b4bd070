"""Plans, one situation at a time, and what holds in every situation."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from cluster_fake import START
from views import RUN_UID, event, failed_pod, job, pod, run, snapshot, spec, words

from llmtrain_api.exits import ExitClass
from llmtrain_api.status import Attempt, Failure, Phase, RunStatus
from llmtrain_operator.changes import Urgency, urgency
from llmtrain_operator.gang import STUCK_AFTER_SECONDS, GangState, observe_gang
from llmtrain_operator.plan import Plan, plan
from llmtrain_operator.snapshot import JobView, PodView, Refusal, Snapshot, format_time

ATTEMPT = Attempt(number=1, job="one-a1", start_time=format_time(START), job_uid="job-uid")
ENDED = pod(0, gone=True, phase="Failed", exit_code=85)


@pytest.mark.parametrize(
    ("jobs", "pods", "state"),
    [
        pytest.param([job()], [], GangState.STARTING, id="no pods yet"),
        pytest.param([job()], [pod(0)], GangState.STARTING, id="one of two pods"),
        pytest.param([job()], [pod(0), pod(1)], GangState.RUNNING, id="all pods"),
        pytest.param(
            [job()], [pod(0), pod(1, phase="Succeeded")], GangState.RUNNING, id="one is done"
        ),
        pytest.param([job()], [pod(0), pod(1, gone=True)], GangState.LOST, id="one vanished"),
        pytest.param(
            [job()],
            [pod(0), pod(1), pod(1, uid="twin", gone=True, created=START + 1)],
            GangState.RUNNING,
            id="a pod that the Job made twice",
        ),
        pytest.param(
            [job()],
            [pod(0), pod(1, gone=True), pod(1, uid="next", created=START + 9)],
            GangState.LOST,
            id="one vanished and was replaced",
        ),
        pytest.param(
            [job()],
            [pod(0), pod(1, gone=True, phase="Pending", node_name="")],
            GangState.STARTING,
            id="one vanished before it had a node",
        ),
        pytest.param([job()], [pod(0), ENDED], GangState.STARTING, id="an ended pod went"),
        pytest.param(
            [job()],
            [pod(0), pod(1, deletion_time=START - STUCK_AFTER_SECONDS - 1)],
            GangState.LOST,
            id="one hangs",
        ),
        pytest.param(
            [job()],
            [pod(0), pod(1, deletion_time=START + 60)],
            GangState.RUNNING,
            id="one has its grace time",
        ),
        pytest.param([job(ending=True)], [pod(0)], GangState.STOPPING, id="a Job that ends"),
        pytest.param(
            [job(ending=True)],
            [pod(0, deletion_time=START - 100)],
            GangState.LOST,
            id="a Job that cannot end",
        ),
        pytest.param([job(failed=True)], [], GangState.FAILED, id="a Job that failed"),
        pytest.param(
            [job(failed=True)],
            [failed_pod(0, 86), pod(1)],
            GangState.STOPPING,
            id="a Job that failed, and a pod whose end is not seen yet",
        ),
        pytest.param([job(complete=True)], [pod(0)], GangState.COMPLETE, id="a Job that is done"),
        pytest.param([job(deleting=True)], [], GangState.STOPPING, id="a Job that goes"),
        pytest.param([], [pod(0)], GangState.STOPPING, id="a pod that outlives its Job"),
        pytest.param([], [ENDED], GangState.FAILED, id="nothing runs without its Job"),
        pytest.param([job(owner_uid="x")], [], GangState.FAILED, id="a Job of another owner"),
    ],
)
def test_the_state_of_a_gang(jobs: list[JobView], pods: list[PodView], state: GangState) -> None:
    seen = snapshot(jobs=tuple(jobs), pods=tuple(pods))
    assert observe_gang(seen, ATTEMPT, 2).state is state


def test_an_attempt_whose_job_was_never_seen_is_unmade() -> None:
    unmade = ATTEMPT.model_copy(update={"job_uid": None})
    assert observe_gang(snapshot(), unmade, 2).state is GangState.UNMADE
    of_another_run = pod(0, run_uid="an earlier run of this name")
    assert observe_gang(snapshot(pods=(of_another_run,)), unmade, 2).state is GangState.UNMADE


@pytest.mark.parametrize(
    ("left", "state"),
    [
        pytest.param(pod(0), GangState.STOPPING, id="a pod that runs"),
        pytest.param(ENDED, GangState.FAILED, id="a pod that is gone"),
    ],
)
def test_an_attempt_whose_job_came_and_went_unseen_is_not_made_again(
    left: PodView, state: GangState
) -> None:
    unmade = ATTEMPT.model_copy(update={"job_uid": None})
    seen = snapshot(RunStatus(attempt=1, attempts=[unmade]), pods=(left,))
    assert observe_gang(seen, unmade, 2).state is state
    todo = plan(seen)
    assert todo.start is None
    assert todo.status is not None
    assert todo.status.attempts[0].job_uid == left.job_uid


def with_status(seen: Snapshot, todo: Plan) -> Snapshot:
    assert todo.status is not None
    return replace(seen, run=replace(seen.run, status=todo.status.to_dict()))


def failed_before(*outcomes: str, steps: tuple[int | None, ...] = ()) -> RunStatus:
    """Returns a status whose attempts ended so, the last one at START."""
    attempts = [
        Attempt(
            number=number,
            job=f"one-a{number}",
            job_uid=f"job-{number}",
            start_time=format_time(START - 100),
            end_time=format_time(START),
            outcome=outcome,
            counts=True,
            failure=Failure(
                exit_class=outcome, message="x", step=(steps or (None,) * 99)[number - 1]
            ),
        )
        for number, outcome in enumerate(outcomes, start=1)
    ]
    return RunStatus(
        attempt=len(attempts), attempts=attempts, phase=Phase.RESTARTING, restarts=len(attempts)
    )


@pytest.mark.parametrize(
    ("status", "delay"),
    [
        pytest.param(failed_before("Hang"), 10, id="the first failure"),
        pytest.param(failed_before("Hang", "Hang"), 20, id="the second in a row"),
        pytest.param(failed_before("Hang", "Hang", "Hang"), 40, id="the third in a row"),
        pytest.param(failed_before(*["Hang"] * 9), 300, id="many in a row"),
        pytest.param(
            failed_before("Hang", "Hang", "Hang", steps=(10, 10, 50)), 10, id="after progress"
        ),
        pytest.param(failed_before("Hang", "Hang", steps=(50, 20)), 10, id="less far than before"),
    ],
)
def test_the_delay_before_the_next_attempt(status: RunStatus, delay: float) -> None:
    seen = snapshot(status, spec=spec(restartPolicy={"maxRestarts": 100}))
    waiting = plan(seen)
    assert waiting.start is None
    assert waiting.look_again == delay
    due = plan(replace(seen, now=START + delay))
    assert due.start is not None
    assert due.start.attempt == len(status.attempts) + 1


def test_a_number_that_a_job_has_used_is_not_used_again() -> None:
    leftover = job(name="one-a7", uid="job-7", attempt=7, failed=True)
    status = failed_before("Hang")
    todo = plan(snapshot(status, jobs=(leftover,), now=START + 10))
    assert todo.status is not None
    assert todo.status.attempt == 7, "its attempt is taken up: it failed"
    later = with_status(snapshot(status, jobs=(leftover,), now=START + 400), todo)
    next_one = plan(later)
    assert next_one.start is not None
    assert next_one.start.attempt == 8


def test_a_job_of_an_attempt_that_is_over_is_deleted_first() -> None:
    status = failed_before("Suspended")
    late = job(name="one-a1", uid="job-1")
    todo = plan(snapshot(status, jobs=(late,), now=START + 100))
    assert (todo.delete_jobs, todo.start) == ((late,), None)


@pytest.mark.parametrize("hangs", [False, True], ids=["stopping", "hanging"])
def test_the_next_attempt_waits_for_pods_that_outlive_their_job(hangs: bool) -> None:
    end = START + 100 - (STUCK_AFTER_SECONDS + 1 if hangs else 0)
    left = pod(1, job_uid="job-1", deletion_time=end)
    todo = plan(snapshot(failed_before("StartTimeout"), pods=(left,), now=START + 100))
    assert todo.start is None
    assert todo.kill_pods == ((left,) if hangs else ())
    gone = pod(1, job_uid="job-1", gone=True)
    after = plan(snapshot(failed_before("StartTimeout"), pods=(gone,), now=START + 100))
    assert after.start is not None


def test_only_ten_attempts_and_five_failures_are_kept() -> None:
    status = failed_before(*["Hang"] * 10)
    running = status.model_copy(
        update={"attempts": [*status.attempts[:-1], ATTEMPT.model_copy(update={"number": 10})]}
    )
    pods = (failed_pod(0, 84, words(ExitClass.HANG, lastLines=["x"] * 8, message="y" * 2000)),)
    seen = snapshot(
        running,
        jobs=(job(attempt=10, failed=True),),
        pods=pods,
        spec=spec(restartPolicy={"maxRestarts": 100}),
    )
    todo = plan(seen)
    assert todo.status is not None
    kept = todo.status.attempts
    assert len(kept) == 10
    assert sum(a.failure is not None for a in kept) == 5
    assert [bool(a.failure and a.failure.last_lines) for a in kept] == [False] * 9 + [True]
    assert len(todo.status.model_dump_json(by_alias=True, exclude_defaults=True)) < 8192


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"spec": None, "refusal_of_spec": "x" * 5000}, id="a spec that is wrong"),
        pytest.param(
            {"refusal": Refusal(1, "Job one-a1", "Invalid", "x" * 5000, True, 0.0)},
            id="a Job that cannot be",
        ),
        pytest.param(
            {"jobs": (job(failed=True, message="x" * 5000),)}, id="a Job that failed without pods"
        ),
        pytest.param(
            {"jobs": (job(),), "events": (event("why", "R" * 100),), "pods": (pod(0),)},
            id="an Event with a long reason",
        ),
    ],
)
def test_long_words_of_others_are_cut(changes: dict[str, Any]) -> None:
    uid = "job-uid" if "jobs" in changes else None
    attempt = ATTEMPT.model_copy(update={"job_uid": uid})
    status = RunStatus(attempt=1, attempts=[attempt])
    todo = plan(snapshot(status, **changes))
    assert todo.status is not None
    RunStatus.model_validate(todo.status.to_dict())


def test_a_deleted_run_is_left_alone() -> None:
    assert plan(snapshot(run=run(deleting=True))) == Plan()


def some_status(dice: random.Random) -> RunStatus:
    """Returns a status that an earlier plan could have written."""
    seen = snapshot(spec=some_spec(dice))
    for _ in range(dice.randrange(5)):
        todo = plan(some_sight(dice, seen))
        if todo.status is None:
            break
        seen = with_status(seen, todo)
    return RunStatus.model_validate(seen.run.status)


def some_spec(dice: random.Random) -> Any:
    return dice.choice(
        [
            None,
            *[spec()] * 6,
            spec(suspend=True),
            spec(retry=1),
            spec(retry=2, suspend=True),
            spec(startTimeoutSeconds=10),
            spec(ttlSecondsAfterFinished=30),
            spec(restartPolicy={"maxRestarts": 0}),
        ]
    )


def some_pods(dice: random.Random) -> tuple[PodView, ...]:
    kinds: list[Any] = [
        lambda i: pod(i),
        lambda i: pod(i, phase="Pending", node_name=""),
        lambda i: pod(i, phase="Pending", waiting="ImagePullBackOff"),
        lambda i: pod(i, gone=True),
        lambda i: pod(i, deletion_time=START),
        lambda i: pod(i, image="r/x@sha256:1"),
        lambda i: failed_pod(i, 85, words(ExitClass.PREEMPTED)),
        lambda i: failed_pod(i, 88, words(ExitClass.INTERNAL, step=dice.randrange(9))),
        lambda i: failed_pod(i, 81, words(ExitClass.DATA)),
        lambda i: failed_pod(i, 137),
        lambda i: failed_pod(i, 0, phase="Succeeded"),
    ]
    return tuple(dice.choice(kinds)(i) for i in range(dice.randrange(3)))


def some_sight(dice: random.Random, seen: Snapshot) -> Snapshot:
    """Returns `seen` with any Job and pods, some time later."""
    attempt = (seen.run.status.get("attempts") or [{}])[-1]
    name = attempt.get("job", "one-a1")
    state = dice.choice(["", "", "", "failed", "complete", "ending", "deleting", "foreign"])
    fields: dict[str, Any] = {"name": name, "attempt": attempt.get("number", 1)}
    if state == "foreign":
        fields["owner_uid"] = "another"
    elif state:
        fields[state] = True
    refusal = Refusal(
        attempt=attempt.get("number", 1),
        what=f"Job {name}",
        reason="Forbidden",
        message="no",
        terminal=dice.random() < 0.3,
        retry_at=START + dice.randrange(100),
    )
    return replace(
        seen,
        spec=some_spec(dice),
        refusal_of_spec="the spec is wrong",
        now=seen.now + dice.choice([0, 1, 20, 400]),
        jobs=(job(**fields),) if dice.random() < 0.8 else (),
        pods=some_pods(dice),
        refusal=refusal if dice.random() < 0.3 else None,
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_holds_in_every_situation(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        seen = some_sight(dice, snapshot(some_status(dice)))
        todo = plan(seen)
        assert todo.status is not None
        _holds(seen, todo)


def _holds(seen: Snapshot, todo: Plan) -> None:
    status = todo.status
    assert status is not None
    again = plan(with_status(seen, todo))
    assert again.status is not None
    settled = RunStatus.model_validate(status.to_dict())
    assert urgency(settled, again.status) is Urgency.NONE, "planning again writes nothing"

    said = {condition.type: condition.status for condition in status.conditions}
    assert len(said) == 7, "all conditions are set from the first visit"
    finished = said["Finished"] == "True"
    assert finished == (said["Succeeded"] != "Unknown")
    assert finished == (status.phase in (Phase.SUCCEEDED, Phase.FAILED))
    assert finished == (status.completion_time is not None)
    assert (said["Stalled"] == "True") == (status.phase is Phase.FAILED)
    assert (said["Suspended"] == "True") == (status.phase is Phase.SUSPENDED)
    assert not (finished and said["Reconciling"] == "True"), "there is nothing left to do"
    assert status.observed_generation == seen.run.generation
    _holds_of_attempts(seen, todo, finished)


def _holds_of_attempts(seen: Snapshot, todo: Plan, finished: bool) -> None:
    status = todo.status
    assert status is not None
    numbers = [attempt.number for attempt in status.attempts]
    assert numbers == sorted(set(numbers)), "no number is used twice"
    assert all(attempt.outcome for attempt in status.attempts[:-1]), "only the latest is open"
    if todo.start is not None:
        latest = status.attempts[-1]
        assert (latest.number, latest.outcome) == (todo.start.attempt, None), "it is written down"
        assert not finished
        assert all(j.owner_uid != RUN_UID or j.name != latest.job for j in seen.jobs)
    assert all(j.owner_uid == RUN_UID for j in todo.delete_jobs), "only what is the run's own"
    if not finished and said_reconciling(status):
        assert todo.look_again is not None or todo.start is not None, "it comes back by itself"


def said_reconciling(status: RunStatus) -> bool:
    return any(c.type == "Reconciling" and c.status == "True" for c in status.conditions)
