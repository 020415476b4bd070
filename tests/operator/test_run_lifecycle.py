"""The core of the operator over a fake cluster: from a new run to its end, and back again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cluster_fake import START
from world import World

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.statussize import MAX_STATUS_BYTES
from llmtrain_operator.kube import (
    CONFIG_MAPS,
    JOBS,
    PODS,
    RUNS,
    SERVICES,
    ForbiddenError,
    InvalidError,
    Resource,
    UnavailableError,
)


@pytest.fixture
def world() -> World:
    return World()


def last_words(exit_class: ExitClass, node: int = 0, at: float = START, **fields: Any) -> str:
    words = {
        "exitClass": exit_class,
        "message": f"it was {exit_class}",
        "node": node,
        "time": f"2027-01-15T08:{int(at - START) // 60:02}:{int(at - START) % 60:02}Z",
        **fields,
    }
    return json.dumps(words)


async def fail_attempt(
    world: World, number: int, exit_class: ExitClass = ExitClass.INTERNAL, **fields: Any
) -> None:
    """Has the running attempt fail on node 0 with this class."""
    job, code = f"one-a{number}", EXIT_POLICIES[exit_class].code
    pods = world.kube.pods_of(job)
    world.kube.end_pod(pods[0], code, last_words(exit_class, **fields))
    world.kube.end_pod(pods[1], 86, last_words(ExitClass.PEER_LOST, node=1))
    if job in world.kube.names("Job"):
        world.kube.end_job(job, "Failed")
    await world.settle()


async def start(world: World, **changes: Any) -> None:
    """Applies a run and has the pods of attempt 1 run."""
    world.apply(**changes)
    await world.settle()
    world.kube.run_pods("one-a1")
    await world.settle()


async def test_a_new_run_gets_a_status_and_children(world: World) -> None:
    world.apply()
    await world.settle()
    assert world.kube.names("Job") == ["one-a1"]
    assert world.kube.names("ConfigMap") == ["one-a1"]
    assert world.kube.names("Service") == ["one-workers"]
    assert world.phase() == "Starting"
    assert world.condition("Accepted") == ("True", "Accepted")
    assert world.condition("WorkersReady") == ("False", "Starting")
    assert world.condition("Reconciling") == ("False", "UpToDate")
    assert world.condition("Succeeded") == ("Unknown", "NotFinished")
    assert len(world.status.conditions) == 7


async def test_the_attempt_is_written_down_before_anything_is_made(world: World) -> None:
    world.apply()
    await world.settle()
    assert world.kube.writes[0] == "patch LLMTrainRun/status one"
    job = world.kube.writes.index("create Job one-a1")
    assert world.kube.writes.index("create ConfigMap one-a1") < job


async def test_starting_a_run_takes_six_writes(world: World) -> None:
    world.apply()
    await world.settle()
    await world.wait(60)
    assert len(world.kube.writes) == 6, world.kube.writes


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


async def test_suspending_a_run_whose_job_is_not_made_yet_makes_none(world: World) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "Job"):
            raise ForbiddenError("exceeded quota: jobs, requested: count/jobs.batch=1")

    world.kube.fail = refuse
    world.apply()
    await world.settle()
    assert world.condition("WorkersReady") == ("False", "Forbidden")
    assert "exceeded quota" in world.message("WorkersReady")
    assert world.message("WorkersReady").endswith("ask for less in workers.resources")
    assert world.condition("Reconciling") == ("False", "UpToDate")
    world.set_spec(suspend=True)
    await world.settle()
    assert world.phase() == "Suspended"


async def test_a_job_that_is_refused_for_now_is_made_when_it_can_be(world: World) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "Job"):
            raise ForbiddenError("exceeded quota")

    world.kube.fail = refuse
    world.apply()
    await world.settle()
    world.kube.fail = lambda verb, kind, name: None
    await world.wait(120)
    assert world.kube.names("Job") == ["one-a1"]
    assert world.condition("WorkersReady") == ("False", "Starting")
    assert world.status.attempt == 1


async def test_a_job_that_the_api_server_cannot_take_ends_the_run(world: World) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "Job"):
            raise InvalidError('unknown field "spec.template.spec.hostAlias"')

    world.kube.fail = refuse
    world.apply()
    await world.settle()
    assert world.phase() == "Failed"
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert world.condition("Stalled") == ("True", "InvalidConfig")
    assert 'unknown field "spec.template.spec.hostAlias"' in world.message("Succeeded")
    assert world.kube.names("Job") == []


async def test_a_spec_that_an_older_crd_let_pass_is_refused(world: World) -> None:
    world.apply(training={"epochs": 3})
    await world.settle()
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert world.condition("Finished") == ("True", "InvalidSpec")
    assert world.status.attempts == []
    world.kube.change(RUNS, "default", "one", {"spec": {"training": {"epochs": None}}})
    await world.settle()
    assert world.kube.names("Job") == ["one-a1"], "it was corrected before it started"


async def test_pods_that_do_not_start_in_time_end_the_run(world: World) -> None:
    world.apply(startTimeoutSeconds=60)
    await world.settle()
    world.kube.make_pods("one-a1")
    await world.wait(30)
    assert world.phase() == "Starting"
    await world.wait(60)
    assert world.phase() == "Failed"
    assert world.condition("Stalled") == ("True", "StartTimeout")
    assert "startTimeoutSeconds" in world.message("Succeeded")
    assert "raise spec.retry" in world.message("Succeeded")
    assert world.kube.names("Job") == [], "the pods must not start after all"


async def test_a_foreign_job_is_never_adopted(world: World) -> None:
    foreign = {"metadata": {"name": "one-a1", "labels": {}}, "spec": {}}
    world.kube.put(JOBS, "default", foreign)
    world.apply()
    await world.settle()
    assert world.condition("WorkersReady") == ("False", "NameTaken")
    assert "Job one-a1 exists and is not this run's" in world.message("WorkersReady")
    world.kube.remove(JOBS, "default", "one-a1")
    await world.wait(120)
    assert world.condition("WorkersReady") == ("False", "Starting")
    assert world.status.attempt == 1


async def test_an_own_job_that_a_lost_answer_hid_is_taken_up(world: World) -> None:
    made = False

    def lose_answer(verb: str, kind: str, name: str) -> None:
        nonlocal made
        if (verb, kind) == ("create", "Job") and not made:
            made = True
            body = world.kube.objects["ConfigMap", "default", "one-a1"]["metadata"]
            job = {"metadata": dict(body), "spec": {"completions": 2}}
            world.kube.put(JOBS, "default", job)
            raise UnavailableError("no answer")

    world.kube.fail = lose_answer
    world.apply()
    with pytest.raises(UnavailableError):
        await world.settle()
    await world.settle()
    assert world.kube.names("Job") == ["one-a1"]
    assert world.status.attempts[0].job_uid is not None


async def test_an_operator_that_dies_after_the_write_ahead_reuses_no_number(
    world: World,
) -> None:
    def die(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "ConfigMap"):
            raise UnavailableError("killed here")

    world.kube.fail = die
    world.apply()
    with pytest.raises(UnavailableError):
        await world.settle()
    assert world.status.attempt == 1
    world.kube.fail = lambda verb, kind, name: None
    world.start_operator()
    await world.settle()
    assert world.kube.names("Job") == ["one-a1"]


async def test_a_lost_status_is_rebuilt_from_the_job(world: World) -> None:
    await start(world)
    world.kube.objects["LLMTrainRun", "default", "one"].pop("status")
    world.kube.change(RUNS, "default", "one", {})
    world.start_operator()
    await world.settle()
    assert world.kube.names("Job") == ["one-a1"], "it trains on"
    assert (world.phase(), world.status.attempt) == ("Running", 1)


async def test_a_status_is_not_written_over_a_version_that_was_not_seen(world: World) -> None:
    world.apply()
    old = world.cache.runs[world.KEY]
    world.kube.change(RUNS, "default", "one", {"metadata": {"labels": {"a": "b"}}})
    new = world.cache.runs[world.KEY]
    world.cache.runs[world.KEY] = old  # The watch is late.
    await world.settle()
    assert world.kube.writes == []
    world.cache.runs[world.KEY] = new
    await world.settle()
    assert world.kube.names("Job") == ["one-a1"]
    assert world.status.attempt == 1


async def test_a_second_attempt_keeps_the_service(world: World) -> None:
    await start(world)
    await fail_attempt(world, 1)
    await world.wait(10)
    assert world.kube.names("Service") == ["one-workers"]
    assert world.kube.names("Job") == ["one-a1", "one-a2"]


@pytest.mark.parametrize("kind", [CONFIG_MAPS, SERVICES])
async def test_a_foreign_object_of_a_childs_name_is_left_alone(
    world: World, kind: Resource
) -> None:
    name = "one-a1" if kind is CONFIG_MAPS else "one-workers"
    world.kube.put(kind, "default", {"metadata": {"name": name}, "data": {"a": "b"}})
    world.apply()
    await world.settle()
    assert world.condition("WorkersReady") == ("False", "NameTaken")
    assert world.kube.names("Job") == []
    assert world.kube.objects[kind.kind, "default", name]["data"] == {"a": "b"}


async def test_a_pod_that_vanishes_ends_the_attempt(world: World) -> None:
    await start(world)
    world.kube.remove(PODS, "default", world.kube.pods_of("one-a1")[1])
    await world.settle()
    assert world.kube.names("Job") == [], "the Job itself would wait for ever"
    world.kube.end_pod(world.kube.pods_of("one-a1")[0], 86, last_words(ExitClass.PEER_LOST))
    await world.settle()
    assert world.status.attempts[0].outcome == "NodeLost"
    await world.wait(10)
    assert world.kube.names("Job") == ["one-a2"]


async def test_a_pod_on_a_dead_node_is_removed_by_force(world: World) -> None:
    await start(world)
    pods = world.kube.pods_of("one-a1")
    gone_at = "2027-01-15T08:01:00Z"  # A minute after START, with its grace time over.
    stuck = {
        "metadata": {"deletionTimestamp": gone_at},
        "status": {
            "conditions": [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByTaintManager",
                    "lastTransitionTime": "2027-01-15T08:00:30Z",
                }
            ]
        },
    }
    world.kube.change(PODS, "default", pods[1], stuck)
    world.kube.end_pod(pods[0], 86, last_words(ExitClass.PEER_LOST, at=START + 10))
    await world.wait(40)
    assert world.kube.names("Pod") == pods, "its grace time is not over"
    await world.wait(60)
    assert f"delete Pod {pods[1]}" in world.kube.writes
    assert "delete Job one-a1" in world.kube.writes
    await world.settle()
    failure = world.status.attempts[0].failure
    assert failure is not None
    assert (failure.exit_class, failure.node) == ("NodeLost", 1)


async def test_deleting_the_job_by_hand_starts_the_next_attempt(
    world: World,
) -> None:
    await start(world)
    world.kube.remove(JOBS, "default", "one-a1")
    await world.settle()
    assert world.condition("WorkersReady") == ("False", "Stopping")
    for pod in world.kube.pods_of("one-a1"):
        world.kube.remove(PODS, "default", pod)
    await world.settle()
    await world.wait(400)
    assert (world.status.attempt, world.kube.names("Job")) == (2, ["one-a2"])


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


async def test_config_maps_of_attempts_that_lost_their_job_go_too(world: World) -> None:
    await start(world, restartPolicy={"maxRestarts": 10})
    for number in range(1, 5):
        world.kube.remove(JOBS, "default", f"one-a{number}")
        for pod in world.kube.pods_of(f"one-a{number}"):
            world.kube.remove(PODS, "default", pod)
        await world.settle()
        await world.wait(400)
        world.kube.run_pods(f"one-a{number + 1}")
        await world.settle()
    assert world.kube.names("ConfigMap") == ["one-a3", "one-a4", "one-a5"]


async def test_a_run_that_is_being_deleted_is_left_alone(world: World) -> None:
    world.apply()
    world.kube.change(
        RUNS, "default", "one", {"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}
    )
    await world.settle()
    assert world.kube.writes == []


async def test_a_config_map_carries_the_authority_and_the_run(world: World) -> None:
    world.apply()
    await world.settle()
    data = world.kube.objects["ConfigMap", "default", "one-a1"]["data"]
    assert data["ca.crt"] == "PEM"
    run = json.loads(data["run.json"])
    assert (run["attempt"], run["masterAddress"]) == (1, "one-a1-0.one-workers")
    assert run["spec"]["training"]["loggingSteps"] == 10, "defaults are in place"


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


async def test_a_pod_lost_in_the_first_seconds_starts_no_second_gang_of_that_number(
    world: World,
) -> None:
    world.apply()
    for _ in range(2):
        await world.reconciler.reconcile(world.KEY)
    world.kube.run_pods("one-a1")
    pods = world.kube.pods_of("one-a1")
    world.kube.remove(PODS, "default", pods[1])
    for _ in range(6):
        await world.reconciler.reconcile(world.KEY)
    assert world.status.attempts[0].job_uid is not None, "written before the Job is deleted"
    assert world.kube.names("Job") == []
    assert world.kube.writes.count("create Job one-a1") == 1
    assert world.kube.pods_of("one-a1") == pods[:1], "it still runs"


async def test_a_job_whose_end_the_watch_missed_holds_nothing_up(world: World) -> None:
    await start(world)
    for pod in world.kube.pods_of("one-a1"):
        world.kube.end_pod(pod, 85, last_words(ExitClass.PREEMPTED))
    del world.kube.objects["Job", "default", "one-a1"]
    world.set_spec(suspend=True)
    await world.settle()
    assert world.phase() == "Suspended"


async def test_a_config_map_of_somebody_else_is_not_deleted(world: World) -> None:
    await start(world, ttlSecondsAfterFinished=60)
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    world.kube.remove(CONFIG_MAPS, "default", "one-a1")
    world.kube.put(CONFIG_MAPS, "default", {"metadata": {"name": "one-a1"}, "data": {}})
    await world.wait(60)
    assert world.kube.names("Job") == []
    assert world.kube.names("ConfigMap") == ["one-a1"]


async def test_a_status_stays_small(world: World) -> None:
    lines = ["ä" * 256] * 8
    await start(world, restartPolicy={"maxRestarts": 20})
    for number in range(1, 12):
        await fail_attempt(world, number, message="ö" * 1000, lastLines=lines, step=number)
        written = json.dumps(world.kube.status("one"), ensure_ascii=False, separators=(",", ":"))
        assert len(written.encode()) <= MAX_STATUS_BYTES
        await world.wait(30)
        world.kube.run_pods(f"one-a{number + 1}")
        await world.settle()
    writes = list(world.kube.writes)
    await world.wait(60)
    assert world.kube.writes == writes, "what was cut is not written again and again"


@pytest.mark.parametrize("at", ["", "attempts"], ids=["of the run", "of an attempt"])
async def test_a_field_of_a_newer_operators_status_does_no_harm(world: World, at: str) -> None:
    await start(world)
    status = world.kube.status("one")
    (status[at][0] if at else status)["newer"] = {"a": 1}
    world.kube.change(RUNS, "default", "one", {"status": status})
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    assert world.phase() == "Succeeded"


async def test_a_run_that_trains_is_left_alone_by_an_operator_that_does_not_know_its_spec(
    world: World,
) -> None:
    await start(world)
    world.set_spec(newer=1)
    await world.wait(60)
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert "one version" in world.message("Accepted")
    assert (world.phase(), world.kube.names("Job")) == ("Running", ["one-a1"])
    world.set_spec(newer=None)
    await world.settle()
    assert world.condition("Accepted") == ("True", "Accepted")
    world.set_spec(newer=1)
    world.kube.end_job("one-a1", "Complete")
    await world.settle()
    assert world.phase() == "Succeeded"
