"""The life of a run over a fake cluster: from its first attempt to its end, and back again."""

from __future__ import annotations

import pytest
from lives import fail_attempt, last_words, start
from world import World

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_operator.kube import (
    JOBS,
    PODS,
)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_whole_run_takes_ten_writes_at_most(world: World) -> None:
    await start(world)
    for pod in world.kube.pods_of("one-a1"):
        world.kube.end_pod(pod, 0)
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    assert world.phase() == "Succeeded"
    assert len(world.kube.writes) <= 10, world.kube.writes


async def test_running_pods_make_a_running_run(world: World) -> None:
    await start(world)
    assert world.phase() == "Running"
    assert world.condition("WorkersReady") == ("True", "AllRunning")
    assert world.status.attempts[0].running_time is not None


async def test_a_complete_job_is_success(world: World) -> None:
    await start(world)
    world.report(progress={"step": 18, "totalSteps": 20, "secondsPerStep": 1})
    await world.wait(20)
    assert world.status.progress is not None
    assert world.status.progress.eta == "2s"
    words = last_words(ExitClass.SUCCESS, step=20, latestCheckpoint="20-a1r0")
    for pod in world.kube.pods_of("one-a1"):
        world.kube.end_pod(pod, 0, words)
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    assert world.condition("Succeeded") == ("True", "Succeeded")
    assert world.condition("Finished") == ("True", "Succeeded")
    assert world.condition("Stalled") == ("False", "NotStalled")
    assert world.status.completion_time is not None
    for _ in range(2):
        shown = world.status.progress
        assert shown is not None
        assert shown.summary == "20/20", "the last report was lost, the words were not"
        assert (shown.eta, shown.activity) == (None, None)
        assert world.status.latest_checkpoint == "20-a1r0"
        await world.wait(20)


@pytest.mark.parametrize("suspended", [True, False], ids=["suspended", "backing off"])
async def test_a_run_between_attempts_does_not_train(world: World, suspended: bool) -> None:
    await start(world)
    checkpoint = {"name": "15-a1r0", "step": 15, "time": "2027-01-15T08:00:00Z"}
    progress = {"step": 18, "totalSteps": 20, "secondsPerStep": 1, "tokensPerSecond": 9}
    world.report(progress=progress, checkpoints=[checkpoint])
    if suspended:
        world.set_spec(suspend=True)
        await world.settle()
    await fail_attempt(world, 1, ExitClass.PREEMPTED, latestCheckpoint="18-a1r0")
    await world.wait(5)
    assert world.phase() == ("Suspended" if suspended else "Restarting")
    shown = world.status.progress
    assert shown is not None
    assert (shown.summary, shown.eta, shown.activity) == ("18/20", None, None)
    assert world.status.latest_checkpoint == "18-a1r0"


async def test_a_failure_that_can_heal_starts_the_next_attempt_after_a_delay(
    world: World,
) -> None:
    await start(world)
    await fail_attempt(world, 1, exit_class=ExitClass.INTERNAL, rank=3, step=7)
    assert world.phase() == "Restarting"
    assert world.condition("Reconciling") == ("True", "WaitingToRestart")
    assert world.kube.names("Job") == ["one-a1"]
    first = world.status.attempts[0]
    assert (first.outcome, first.counts) == ("InternalError", True)
    assert first.failure is not None
    assert (first.failure.node, first.failure.rank, first.failure.step) == (0, 3, 7)

    await world.wait(10)
    assert world.kube.names("Job") == ["one-a1", "one-a2"]
    assert (world.status.attempt, world.status.restarts) == (2, 1)
    world.kube.run_pods("one-a2")
    await world.settle()
    assert world.phase() == "Running"


@pytest.mark.parametrize(
    ("exit_class", "retried", "restarts"),
    [
        pytest.param(ExitClass.CONFIG, False, 0, id="a spec that cannot work is not tried again"),
        pytest.param(ExitClass.DATA, False, 0, id="bad data is not tried again"),
        pytest.param(ExitClass.OUT_OF_MEMORY, False, 0, id="out of memory is not tried again"),
        pytest.param(ExitClass.DIVERGED, False, 0, id="divergence is not tried again"),
        pytest.param(ExitClass.HANG, True, 1, id="a hang is tried again and counts"),
        pytest.param(ExitClass.PREEMPTED, True, 0, id="preemption is tried again for nothing"),
        pytest.param(ExitClass.STORAGE, True, 1, id="unreachable storage is tried again"),
        pytest.param(ExitClass.INTERNAL, True, 1, id="an internal error is tried again"),
    ],
)
async def test_the_exit_class_decides(
    world: World, exit_class: ExitClass, retried: bool, restarts: int
) -> None:
    await start(world)
    await fail_attempt(world, 1, exit_class)
    await world.wait(400)
    assert (world.status.attempt == 2) is retried
    assert world.status.restarts == restarts
    if not retried:
        assert world.phase() == "Failed"
        assert world.condition("Succeeded") == ("False", exit_class)
        assert world.condition("Stalled") == ("True", exit_class)
        assert EXIT_POLICIES[exit_class].hint in world.message("Finished")


async def test_restarts_are_bounded(world: World) -> None:
    await start(world, restartPolicy={"maxRestarts": 1})
    await fail_attempt(world, 1)
    await world.wait(10)
    world.kube.run_pods("one-a2")
    await world.settle()
    await fail_attempt(world, 2)
    assert world.phase() == "Failed"
    assert world.status.restarts == 1
    assert [attempt.counts for attempt in world.status.attempts] == [True, False]
    assert "after 1 restarts (restartPolicy.maxRestarts)" in world.message("Succeeded")
    await world.wait(1000)
    assert world.kube.names("Job") == ["one-a1", "one-a2"]


async def test_a_failed_run_is_tried_again_when_retry_is_raised(world: World) -> None:
    await start(world)
    await fail_attempt(world, 1, ExitClass.DATA)
    assert world.phase() == "Failed"
    world.set_spec(retry=1)
    await world.settle()
    assert world.kube.names("Job") == ["one-a1", "one-a2"]
    assert (world.phase(), world.status.restarts) == ("Starting", 0)
    assert world.condition("Finished") == ("False", "NotFinished")
    assert world.status.completion_time is None


async def test_raising_retry_while_it_runs_gives_its_restarts_back(world: World) -> None:
    await start(world, restartPolicy={"maxRestarts": 1})
    await fail_attempt(world, 1)
    await world.wait(10)
    world.kube.run_pods("one-a2")
    world.set_spec(retry=1)
    await world.settle()
    assert world.status.restarts == 0
    await fail_attempt(world, 2)
    await world.wait(10)
    assert (world.status.attempt, world.status.restarts) == (3, 1)
    world.kube.run_pods("one-a3")
    await world.settle()
    await fail_attempt(world, 3)
    await world.wait(400)
    assert (world.phase(), world.status.attempt) == ("Failed", 3)


async def test_a_run_that_succeeded_never_starts_again(world: World) -> None:
    await start(world)
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    world.set_spec(retry=1)
    world.kube.remove(JOBS, "default", "one-a1")
    await world.wait(1000)
    assert world.kube.names("Job") == []
    assert world.phase() == "Succeeded"
    assert world.status.observed_generation == 2


async def test_suspending_stops_the_pods_and_resuming_starts_the_next_attempt(
    world: World,
) -> None:
    await start(world)
    world.set_spec(suspend=True)
    await world.settle()
    assert world.kube.names("Job") == []
    assert world.condition("Suspended") == ("False", "Suspending")
    assert world.condition("Reconciling") == ("True", "StoppingWorkers")
    for pod in world.kube.pods_of("one-a1"):
        world.kube.end_pod(pod, 85, last_words(ExitClass.PREEMPTED, latestCheckpoint="9-a1r0"))
        world.kube.remove(PODS, "default", pod)
    await world.settle()
    assert world.phase() == "Suspended"
    assert world.condition("Suspended") == ("True", "Suspended")
    assert world.condition("Reconciling") == ("False", "UpToDate")
    assert world.status.attempts[0].outcome == "Suspended"
    assert world.status.latest_checkpoint == "9-a1r0"

    world.set_spec(suspend=False)
    await world.settle()
    assert world.kube.names("Job") == ["one-a2"]
    assert (world.phase(), world.status.restarts) == ("Starting", 0)
    assert [r for r in world.event_reasons() if r in ("Suspended", "Resumed")] == [
        "Suspended",
        "Resumed",
    ]


async def test_a_run_that_is_suspended_from_the_start_makes_nothing(world: World) -> None:
    world.apply(suspend=True)
    await world.settle()
    assert world.kube.names("Job") == []
    assert world.phase() == "Suspended"
    assert world.status.attempts == []


async def test_jobs_of_a_finished_run_go_after_its_ttl(world: World) -> None:
    await start(world, ttlSecondsAfterFinished=60)
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    await world.wait(30)
    assert world.kube.names("Job") == ["one-a1"]
    await world.wait(60)
    assert world.kube.names("Job") == []
    assert world.kube.names("ConfigMap") == []
    assert world.phase() == "Succeeded"
    writes = len(world.kube.writes)
    await world.wait(60)
    assert len(world.kube.writes) == writes


async def test_only_the_newest_jobs_are_kept(world: World) -> None:
    await start(world, restartPolicy={"maxRestarts": 10})
    for number in range(1, 5):
        await fail_attempt(world, number)
        await world.wait(400)
        world.kube.run_pods(f"one-a{number + 1}")
        await world.settle()
    assert world.kube.names("Job") == ["one-a3", "one-a4", "one-a5"]
    assert world.kube.names("ConfigMap") == ["one-a3", "one-a4", "one-a5"]


async def test_events_tell_the_story(world: World) -> None:
    await start(world)
    await fail_attempt(world, 1)
    await world.wait(10)
    world.kube.run_pods("one-a2")
    await world.settle()
    world.kube.end_job("one-a2", "Complete")
    await world.settle()
    assert world.event_reasons() == [
        "AttemptStarted",
        "WorkersRunning",
        "AttemptFailed",
        "AttemptStarted",
        "WorkersRunning",
        "Succeeded",
    ]


@pytest.mark.parametrize("seconds", [0, 3, 30, 300])
async def test_looking_again_changes_nothing(world: World, seconds: float) -> None:
    await start(world)
    await fail_attempt(world, 1, ExitClass.DATA)
    writes = list(world.kube.writes)
    await world.wait(seconds)
    assert world.kube.writes == writes
