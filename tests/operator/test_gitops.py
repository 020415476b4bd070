"""What Flux and Argo CD make of a run in each of its states, as the operator writes them."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from chains import Chain, chained, whole
from cluster_fake import START
from gitops import kstatus, lua
from lives import fail_attempt, last_words, start

from llmtrain_api.exits import ExitClass
from llmtrain_api.status import Condition
from llmtrain_operator.kube import RUNS
from llmtrain_operator.schedule_conditions import Said
from llmtrain_operator.schedule_conditions import conditions as said_of_schedule

Object = dict[str, Any]


def recorded(chain: Chain, name: str = "one") -> Object:
    """Returns a run as the API server holds it."""
    body = chain.kube.objects["LLMTrainRun", "default", name]
    return copy.deepcopy({"apiVersion": "llmtrain.dev/v1alpha1", "kind": "LLMTrainRun", **body})


async def new(chain: Chain) -> None:
    chain.apply()
    chain.kube.change(RUNS, "default", "one", {"status": {"observedGeneration": -1}})


async def pending(chain: Chain) -> None:
    chain.apply()
    await chain.reconciler.reconcile(chain.KEY)


async def starting(chain: Chain) -> None:
    chain.apply()
    await chain.settle()


async def without_room(chain: Chain) -> None:
    chain.apply()
    await chain.settle()
    said = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    chain.kube.make_pods("one-a1", phase="Pending", conditions=[said])
    await chain.settle()


async def running(chain: Chain) -> None:
    await start(chain)
    chain.report(progress={"step": 12, "totalSteps": 20, "secondsPerStep": 1})
    await chain.wait(20)


async def restarting(chain: Chain) -> None:
    await start(chain)
    await fail_attempt(chain, 1, ExitClass.INTERNAL)


async def suspending(chain: Chain) -> None:
    await start(chain)
    chain.set_spec(suspend=True)
    await chain.settle()


async def suspended(chain: Chain) -> None:
    await suspending(chain)
    await fail_attempt(chain, 1, ExitClass.PREEMPTED)


async def changed(chain: Chain) -> None:
    await start(chain)
    chain.set_spec(ttlSecondsAfterFinished=60)


async def succeeded(chain: Chain) -> None:
    await start(chain)
    for pod in chain.kube.pods_of("one-a1"):
        chain.kube.end_pod(pod, 0, last_words(ExitClass.SUCCESS, step=20))
    chain.kube.end_job("one-a1", "Complete")
    await chain.settle()


async def failed(chain: Chain) -> None:
    await start(chain)
    await fail_attempt(chain, 1, ExitClass.DATA)


async def invalid(chain: Chain) -> None:
    chain.apply(training={"epochs": 3})  # SPEC has maxSteps too.
    await chain.settle()


async def late(chain: Chain) -> None:
    chain.apply(startTimeoutSeconds=60)
    await chain.settle()
    await chain.wait(90)


async def waiting(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))


async def missing(chain: Chain) -> None:
    await chain.apply_runs(one=chained("pre"))


async def waiting_in_vain(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    await chain.fail("pre")


Record = Callable[[Chain], Awaitable[None]]
STATES: list[tuple[Record, str, str, str]] = [
    # what happens, in kstatus, in Argo CD, and there in words
    (new, "InProgress", "Progressing", "Waiting for the operator."),
    (pending, "InProgress", "Progressing", "Pending: Job one-a1 is being created."),
    (starting, "Current", "Progressing", "Starting: 0 of 2 pods are running"),
    (without_room, "Current", "Progressing", "Unschedulable: 0 of 2 pods are running; pod"),
    (running, "Current", "Progressing", "Running, step 12/20, 8s left."),
    (restarting, "InProgress", "Progressing", "BackOff: Attempt 1 ended (InternalError)"),
    (suspending, "InProgress", "Progressing", "Stopping: The last pods of the attempt"),
    (suspended, "Current", "Suspended", "Suspended: spec.suspend is true"),
    (changed, "InProgress", "Progressing", "Waiting for the operator."),
    (succeeded, "Current", "Healthy", "Succeeded: Attempt 1 finished"),
    (failed, "Failed", "Degraded", "InvalidData: attempt 1, node 0"),
    (invalid, "Failed", "Degraded", "InvalidSpec: spec: training"),
    (late, "Failed", "Degraded", "StartTimeout: The pods were not all running within 60 s"),
    (waiting, "Current", "Progressing", "WaitingForRun: model.fromRun: waiting for run pre"),
    (missing, "Current", "Progressing", "RunNotFound: model.fromRun: run pre does not exist"),
    (waiting_in_vain, "Failed", "Degraded", "PredecessorFailed: model.fromRun: run pre has failed"),
]


@pytest.mark.parametrize(
    ("record", "flux", "argo", "words"),
    [pytest.param(*state, id=state[0].__name__.replace("_", " ")) for state in STATES],
)
async def test_what_the_engines_make_of_a_run(
    record: Record, flux: str, argo: str, words: str
) -> None:
    chain = Chain()
    await record(chain)
    run = recorded(chain)
    assert kstatus(run) == flux
    health = lua("LLMTrainRun/health.lua", run)
    assert health["status"] == argo
    assert health["message"].startswith(words)


async def test_a_run_that_is_being_deleted_is_terminating() -> None:
    chain = Chain()
    await running(chain)
    run = recorded(chain)
    run["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    assert kstatus(run) == "Terminating"


@pytest.mark.parametrize(
    ("record", "offered"),
    [
        pytest.param(new, {"suspend"}, id="a new run can be suspended"),
        pytest.param(running, {"suspend"}, id="a running one too"),
        pytest.param(waiting, {"suspend"}, id="one that waits too"),
        pytest.param(suspended, {"resume"}, id="a suspended run can go on"),
        pytest.param(failed, {"retry"}, id="a failed run can be tried again"),
        pytest.param(succeeded, set(), id="for a finished one there is nothing to do"),
    ],
)
async def test_the_actions_that_fit_are_offered(record: Record, offered: set[str]) -> None:
    chain = Chain()
    await record(chain)
    actions = lua("LLMTrainRun/discovery.lua", recorded(chain))
    assert set(actions) == {"suspend", "resume", "retry"}
    assert {name for name, action in actions.items() if not action["disabled"]} == offered


@pytest.mark.parametrize(
    ("record", "action", "change", "phase"),
    [
        pytest.param(running, "suspend", {"suspend": True}, "Running", id="suspend"),
        pytest.param(suspended, "resume", {"suspend": False}, "Starting", id="resume"),
        pytest.param(failed, "retry", {"retry": 1}, "Starting", id="retry"),
    ],
)
async def test_an_action_changes_one_field_and_the_operator_acts(
    record: Record, action: str, change: Object, phase: str
) -> None:
    chain = Chain()
    await record(chain)
    run = recorded(chain)
    after = lua(f"LLMTrainRun/actions/{action}.lua", run)
    assert after["spec"] == {**run["spec"], **change}
    chain.set_spec(**change)
    await chain.settle()
    assert chain.phase() == phase
    wanted = "Suspending" if action == "suspend" else "NotSuspended"
    assert chain.condition("Suspended") == ("False", wanted)


async def test_retry_counts_on() -> None:
    chain = Chain()
    await failed(chain)
    run = recorded(chain)
    run["spec"]["retry"] = 4
    assert lua("LLMTrainRun/actions/retry.lua", run)["spec"]["retry"] == 5


def schedule(*said: Said, generation: int = 2) -> Object:
    """Returns a schedule of generation 2 whose operator has said this of it, in this order."""
    conditions: list[Condition] = []
    for each in said:
        conditions = said_of_schedule(conditions, each, generation, START)
    status = {"observedGeneration": generation, "conditions": [c.to_dict() for c in conditions]}
    spec = {"schedule": "@weekly", "suspend": False}
    return {"metadata": {"generation": 2}, "spec": spec, "status": status}


GOES = Said("True", "Scheduled", "Runs are made as the schedule says.")


@pytest.mark.parametrize(
    ("seen", "flux", "argo", "words"),
    [
        pytest.param(
            schedule(generation=-1),
            "InProgress",
            "Progressing",
            "Waiting for the operator.",
            id="a new one",
        ),
        pytest.param(schedule(GOES), "Current", "Healthy", "Scheduled: Runs", id="one that goes"),
        pytest.param(
            schedule(Said("True", "Suspended", "spec.suspend is true.")),
            "Current",
            "Healthy",
            "Suspended: spec.suspend",
            id="a suspended one",
        ),
        pytest.param(
            schedule(Said("False", "RunRefused", "exceeded quota")),
            "InProgress",
            "Progressing",
            "RunRefused: exceeded quota",
            id="one whose run is refused for now",
        ),
        pytest.param(
            schedule(GOES, Said("False", "InvalidSpec", "no such zone", stalled=True)),
            "Failed",
            "Degraded",
            "InvalidSpec: no such zone",
            id="one that cannot work",
        ),
        pytest.param(
            schedule(GOES, generation=1),
            "InProgress",
            "Progressing",
            "Waiting for the operator.",
            id="one that was changed",
        ),
    ],
)
def test_what_the_engines_make_of_a_schedule(
    seen: Object, flux: str, argo: str, words: str
) -> None:
    assert kstatus(seen) == flux
    health = lua("LLMTrainSchedule/health.lua", seen)
    assert health["status"] == argo
    assert health["message"].startswith(words)


@pytest.mark.parametrize("suspend", [False, True], ids=["one that goes", "a suspended one"])
def test_the_actions_of_a_schedule(suspend: bool) -> None:
    seen = schedule(GOES)
    seen["spec"]["suspend"] = suspend
    actions = lua("LLMTrainSchedule/discovery.lua", seen)
    assert actions["suspend"]["disabled"] is suspend
    assert actions["resume"]["disabled"] is not suspend
    fits = "resume" if suspend else "suspend"
    after = lua(f"LLMTrainSchedule/actions/{fits}.lua", seen)
    assert after["spec"] == {**seen["spec"], "suspend": not suspend}
