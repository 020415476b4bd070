"""How a run starts over a fake cluster: what is made, in which order, and what is in the way."""

from __future__ import annotations

import json

import pytest
from lives import fail_attempt, start
from world import World

from llmtrain_operator.kube import (
    CONFIG_MAPS,
    JOBS,
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


async def test_a_config_map_carries_the_authority_and_the_run(world: World) -> None:
    world.apply()
    await world.settle()
    data = world.kube.objects["ConfigMap", "default", "one-a1"]["data"]
    assert data["ca.crt"] == "PEM"
    run = json.loads(data["run.json"])
    assert (run["attempt"], run["masterAddress"]) == (1, "one-a1-0.one-workers")
    assert run["spec"]["training"]["loggingSteps"] == 10, "defaults are in place"
