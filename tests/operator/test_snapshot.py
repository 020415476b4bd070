"""From objects as the API server sends them to the views that decisions are made of."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_fake import START
from views import run, snapshot, spec
from world import spec_with

from llmtrain_api.errors import ConfigError
from llmtrain_api.status import RunProgress, RunStatus
from llmtrain_operator.acceptance import accept
from llmtrain_operator.findings import with_checkpoint, with_lineage, with_report_of
from llmtrain_operator.snapshot import format_time, job_view, parse_time, pod_view, run_view

TIME = "2027-01-15T08:00:00Z"
METADATA = {
    "namespace": "default",
    "name": "x",
    "uid": "u",
    "resourceVersion": "7",
    "creationTimestamp": TIME,
}


def pod(status: dict[str, Any] | None = None, **metadata: Any) -> Any:
    return pod_view({"metadata": {**METADATA, **metadata}, "status": status or {}})


def trainer(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "state": state}]}


def test_times() -> None:
    assert parse_time(TIME) == START
    assert parse_time("2027-01-15T08:00:00.000000Z") == START
    assert parse_time(None) is None
    assert format_time(START) == TIME


def test_a_run_without_status() -> None:
    seen = run_view({"metadata": {**METADATA, "generation": 3}, "spec": {"a": 1}})
    assert (seen.generation, seen.version, seen.deleting, seen.status) == (3, 7, False, {})


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param([], (False, False, False), id="a Job that goes on"),
        pytest.param(["FailureTarget"], (True, False, False), id="its failure is decided"),
        pytest.param(["FailureTarget", "Failed"], (True, False, True), id="it failed"),
        pytest.param(["SuccessCriteriaMet"], (True, False, False), id="its success is decided"),
        pytest.param(["SuccessCriteriaMet", "Complete"], (True, True, False), id="it is done"),
    ],
)
def test_the_outcome_of_a_job(conditions: list[str], expected: tuple[bool, bool, bool]) -> None:
    said = [{"type": type_, "status": "True", "message": type_} for type_ in conditions]
    seen = job_view({"metadata": METADATA, "status": {"conditions": said}})
    assert (seen.ending, seen.complete, seen.failed) == expected


def test_a_condition_that_does_not_hold_says_nothing() -> None:
    said = [{"type": "Failed", "status": "False"}]
    assert not job_view({"metadata": METADATA, "status": {"conditions": said}}).failed


def test_a_pod_that_was_just_made() -> None:
    seen = pod()
    assert (seen.phase, seen.waits_since, seen.exit_code) == ("Pending", START, None)
    assert (seen.index, seen.attempt, seen.job_uid) == (0, 0, "")


def test_what_identifies_a_pod() -> None:
    seen = pod(
        labels={"llmtrain.dev/run": "one", "llmtrain.dev/attempt": "3"},
        annotations={"batch.kubernetes.io/job-completion-index": "5"},
        ownerReferences=[{"uid": "other"}, {"uid": "job", "controller": True}],
    )
    assert (seen.run, seen.attempt, seen.index, seen.job_uid) == ("one", 3, 5, "job")


def test_a_pod_that_no_node_takes() -> None:
    said = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes fit"}
    assert pod({"conditions": [said]}).unschedulable == "0/2 nodes fit"


def test_a_pod_that_has_a_node_waits_since_then() -> None:
    said = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T08:01:00Z"}
    seen = pod({"conditions": [said]})
    assert (seen.unschedulable, seen.waits_since) == ("", START + 60)


@pytest.mark.parametrize(
    ("status", "waiting"),
    [
        pytest.param(trainer(waiting={"reason": "ErrImagePull"}), "ErrImagePull", id="the trainer"),
        pytest.param(
            {
                **trainer(waiting={"reason": "PodInitializing"}),
                "initContainerStatuses": [
                    {"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
                ],
            },
            "CrashLoopBackOff",
            id="an init container that fails",
        ),
        pytest.param(trainer(running={}), "", id="it runs"),
        pytest.param({}, "", id="nothing yet"),
    ],
)
def test_why_a_pod_waits(status: dict[str, Any], waiting: str) -> None:
    assert pod(status).waiting == waiting


def test_an_init_container_that_fails_is_the_pods_reason() -> None:
    ended = {"name": "fetch", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
    seen = pod({"phase": "Failed", "initContainerStatuses": [ended]})
    assert seen.reason == "InitContainerFailed"
    assert seen.message == "container fetch ended with exit code 3 Error"


def test_how_a_pod_ended() -> None:
    ended = {"exitCode": 88, "reason": "Error", "message": "m", "finishedAt": TIME}
    seen = pod({**trainer(terminated=ended), "phase": "Failed"})
    assert (seen.exit_code, seen.exit_reason, seen.exit_message) == (88, "Error", "m")
    assert (seen.finished, seen.ended) == (START, True)


@pytest.mark.parametrize(
    ("image", "expected"),
    [("r/x@sha256:abc", "r/x@sha256:abc"), ("sha256:abc", ""), ("", "")],
)
def test_only_an_image_that_can_be_pulled_again_counts(image: str, expected: str) -> None:
    status = {"containerStatuses": [{"name": "trainer", "imageID": image}]}
    assert pod(status).image == expected


def test_a_good_spec_is_accepted_with_its_defaults() -> None:
    assert accept(spec_with(), "trainer:1") == spec()


@pytest.mark.parametrize(
    ("changes", "image", "message"),
    [
        pytest.param({}, "", "workers.image: is not set, and the operator has no", id="no image"),
        pytest.param(
            {"stage": "PPO"}, "x", "stage: Input should be 'Tokenizer'", id="an unknown stage"
        ),
        pytest.param({"unknown": 1}, "x", "unknown: Extra inputs", id="an unknown field"),
        pytest.param(
            {"workers": {"podTemplate": {"spec": {"hostname": "x"}}}},
            "x",
            "workers.podTemplate.spec.hostname: is set by llmtrain",
            id="a field that llmtrain owns",
        ),
    ],
)
def test_a_spec_that_cannot_work_is_refused_with_its_field(
    changes: dict[str, Any], image: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        accept(spec_with(**changes), image)


def test_many_mistakes_are_told_in_part() -> None:
    with pytest.raises(ConfigError, match="and 3 more"):
        accept(spec_with(**{f"unknown{n}": n for n in range(8)}), "x")


def test_a_checkpoint_never_goes_back() -> None:
    status = RunStatus(latest_checkpoint="100-a1r0")
    assert with_checkpoint(status, "90-a2r0").latest_checkpoint == "100-a1r0"
    assert with_checkpoint(status, "").latest_checkpoint == "100-a1r0"
    assert with_checkpoint(status, "110-a2r0").latest_checkpoint == "110-a2r0"


def test_a_report_of_another_attempt_is_not_shown() -> None:
    status = RunStatus(attempt=2, progress=RunProgress(step=9))
    assert with_report_of(snapshot(), status) == status


def test_the_hash_is_of_the_spec_that_was_started() -> None:
    first = with_lineage(RunStatus(), spec(), ())
    assert first.resolved is not None
    assert first.resolved.spec_hash
    other = with_lineage(RunStatus(), spec(training={"seed": 1}), ())
    assert other.resolved != first.resolved
    assert run().uid
