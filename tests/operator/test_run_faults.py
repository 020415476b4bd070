"""What goes wrong under a run: lost pods, Jobs, statuses and operators, and other versions."""

from __future__ import annotations

import asyncio
import json

import pytest
from cluster_fake import START
from lives import fail_attempt, last_words, start
from world import World

from llmtrain_api.exits import ExitClass
from llmtrain_api.statussize import MAX_STATUS_BYTES
from llmtrain_operator.kube import (
    CONFIG_MAPS,
    JOBS,
    PODS,
    RUNS,
    NamespaceEndsError,
    UnavailableError,
)


@pytest.fixture
def world() -> World:
    return World()


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


async def test_a_run_in_a_namespace_that_ends_is_left_alone(world: World) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        if verb == "create":
            raise NamespaceEndsError("the namespace is being terminated")

    await start(world)
    world.kube.fail = refuse
    for pod in world.kube.pods_of("one-a1"):  # As the namespace's end does; the run goes later.
        world.kube.remove(PODS, "default", pod)
    world.kube.remove(JOBS, "default", "one-a1")
    writes = len(world.kube.writes)
    working = asyncio.create_task(world.reconciler.work())
    for _ in range(100):
        world.kube.now += 5
        world.queue.add(world.KEY)
        await asyncio.sleep(0)
    working.cancel()
    assert len(world.kube.writes) <= writes + 3, "no attempt after the other"
    assert world.KEY not in world.cache.runs


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
