"""A run whose tokens are made by a Job of their own: first that one, then the gang."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lives import last_words
from views import run, spec
from world import World

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_operator.children import Children, build_children
from llmtrain_operator.kube import RUNS
from llmtrain_operator.publish import live_attempts

JOB: dict[str, Any] = {"resources": {"limits": {"cpu": 4}}, "nodeSelector": {"pool": "cpu"}}


@pytest.fixture
def world() -> World:
    return World()


async def begin(world: World, **changes: Any) -> None:
    """Applies a run with a Job for its tokens and has its pod run."""
    world.apply(prepare={"job": JOB}, **changes)
    await world.settle()
    world.kube.run_pods("one-p1")
    await world.settle()


async def end(world: World, exit_class: ExitClass, number: int = 1) -> None:
    """Has the Job for the tokens end."""
    job, code = f"one-p{number}", EXIT_POLICIES[exit_class].code
    [pod] = world.kube.pods_of(job)
    world.kube.end_pod(pod, code, last_words(exit_class))
    world.kube.end_job(job, "Failed" if code else "Complete")
    await world.settle()


async def test_the_tokens_are_made_before_the_gang_is_there(world: World) -> None:
    world.apply(prepare={"job": JOB})
    await world.settle()
    assert world.kube.names("Job") == ["one-p1"]
    assert world.phase() == "Preparing"
    world.kube.run_pods("one-p1")
    await world.settle()
    assert world.phase() == "Preparing"
    assert world.condition("WorkersReady") == ("False", "Preparing")
    assert world.message("WorkersReady") == (
        "Job one-p1 turns rows into tokens; the workers start after it."
    )
    world.report(activity="Preparing", message="turning rows into tokens (9 rows, 99)")
    await world.wait(20)
    progress = world.status.progress
    assert progress is not None
    assert progress.message == "turning rows into tokens (9 rows, 99)"
    assert world.kube.names("Job") == ["one-p1"]


async def test_the_gang_starts_at_once_when_the_tokens_are_made(world: World) -> None:
    await begin(world)
    await end(world, ExitClass.SUCCESS)
    assert world.kube.names("Job") == ["one-a2", "one-p1"]
    assert world.kube.objects["Job", "default", "one-a2"]["spec"]["completions"] == 2
    assert world.phase() == "Starting"
    prepared, training = world.status.attempts
    assert (prepared.outcome, prepared.task, prepared.failure) == ("Prepared", "Prepare", None)
    assert (training.outcome, training.task) == (None, "Train")
    assert (world.status.prepared, world.status.restarts) == (True, 0)
    world.kube.run_pods("one-a2")
    await world.settle()
    assert world.phase() == "Running"
    assert "WorkersNotReady" not in world.event_reasons()


async def test_the_tokens_are_made_once(world: World) -> None:
    await begin(world)
    await end(world, ExitClass.SUCCESS)
    world.kube.run_pods("one-a2")
    await world.settle()
    for index, pod in enumerate(world.kube.pods_of("one-a2")):
        code = EXIT_POLICIES[ExitClass.INTERNAL].code
        world.kube.end_pod(pod, code, last_words(ExitClass.INTERNAL, node=index))
    world.kube.end_job("one-a2", "Failed")
    await world.settle()
    await world.wait(60)
    assert "one-a3" in world.kube.names("Job")
    assert world.phase() == "Restarting"


async def test_a_failure_that_can_heal_is_tried_again(world: World) -> None:
    await begin(world)
    await end(world, ExitClass.STORAGE)
    assert world.phase() == "Restarting"
    assert world.kube.names("Job") == ["one-p1"]
    await world.wait(60)
    assert world.kube.names("Job") == ["one-p1", "one-p2"]
    assert world.phase() == "Preparing"
    world.kube.run_pods("one-p2")
    await world.settle()
    await end(world, ExitClass.SUCCESS, number=2)
    assert "one-a3" in world.kube.names("Job")


async def test_bad_data_ends_the_run_before_a_device_is_taken(world: World) -> None:
    await begin(world)
    await end(world, ExitClass.DATA)
    assert world.phase() == "Failed"
    assert world.condition("Finished") == ("True", "InvalidData")
    assert world.kube.names("Job") == ["one-p1"]


async def test_a_lost_status_does_not_take_the_tokens_for_the_model(world: World) -> None:
    await begin(world)
    world.kube.objects["LLMTrainRun", "default", "one"].pop("status")
    world.kube.change(RUNS, "default", "one", {})
    world.start_operator()
    await world.settle()
    assert world.phase() == "Preparing"
    await end(world, ExitClass.SUCCESS)
    assert world.phase() == "Starting"
    assert "one-a2" in world.kube.names("Job")


async def test_suspension_stops_it_and_the_way_back_begins_anew(world: World) -> None:
    await begin(world)
    world.set_spec(suspend=True)
    await world.settle()
    [pod] = world.kube.pods_of("one-p1")
    world.kube.end_pod(pod, EXIT_POLICIES[ExitClass.PREEMPTED].code, "")
    await world.wait(5)
    assert world.phase() == "Suspended"
    world.set_spec(suspend=False)
    await world.settle()
    assert world.kube.names("Job") == ["one-p2"]


async def test_a_new_authority_reaches_its_pod(world: World) -> None:
    await begin(world)
    assert live_attempts(world.cache) == [(world.KEY, "one-p1")]


def children(**workers: Any) -> Children:
    of = spec(prepare={"job": {**JOB, "tolerations": [{"key": "cpu"}]}}, workers=workers)
    return build_children(
        run(), of, 1, image="trainer:1", progress_url="https://x", ca="PEM", task="Prepare"
    )


def test_its_pod_is_one_and_takes_no_device() -> None:
    built = children(
        nodes=2,
        processesPerNode=2,
        resources={"limits": {"nvidia.com/gpu": 2}},
        nodeSelector={"pool": "gpu"},
        tolerations=[{"key": "gpu"}],
        serviceAccountName="trainer",
        podTemplate={
            "metadata": {"annotations": {"team": "nlp"}},
            "spec": {"runtimeClassName": "nvidia"},
        },
    )
    job, template = built.job["spec"], built.job["spec"]["template"]
    assert (job["completionMode"], job["completions"], job["backoffLimit"]) == ("Indexed", 1, 0)
    pod = template["spec"]
    limits = {"cpu": "4"}
    assert pod["containers"][0]["resources"] == {"limits": limits, "requests": limits}
    assert pod["nodeSelector"] == {"pool": "cpu"}
    assert {"key": "cpu"} in pod["tolerations"]
    assert {"key": "gpu"} not in pod["tolerations"]
    assert pod["serviceAccountName"] == "trainer"
    assert template["metadata"]["annotations"] == {"team": "nlp"}
    assert "runtimeClassName" not in pod
    assert "affinity" not in pod
    assert built.service is None


def test_it_is_told_what_it_is_for_by_the_whole_spec() -> None:
    built = children(nodes=2)
    told = RunFile.model_validate(json.loads(built.config_map["data"]["run.json"]))
    assert (told.task, told.nodes, told.processes_per_node) == ("Prepare", 1, 1)
    assert told.spec.workers.nodes == 2, "the hash of the spec is that of the gang"
    assert told.master_address == "127.0.0.1"
    assert built.job["metadata"]["name"] == built.config_map["metadata"]["name"] == "one-p1"
