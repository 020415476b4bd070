"""Why workers are not running yet, in the words that a user reads."""

from __future__ import annotations

import pytest
from cluster_fake import START
from views import event, job, pod, run

from llmtrain_operator.observe import cluster_event, late_object
from llmtrain_operator.snapshot import ClusterEvent, JobView, PodView
from llmtrain_operator.waiting import MAX_MESSAGE, why_waiting

CREATING = pod(1, phase="Pending", waiting="ContainerCreating")
PENDING = pod(1, phase="Pending", node_name="")


def pulling(waiting: str, message: str) -> PodView:
    return pod(1, phase="Pending", waiting=waiting, waiting_message=message)


IMAGE_HELP = ": correct workers.image or its registry, or name a key in workers.imagePullSecrets"


@pytest.mark.parametrize(
    ("pods", "events", "reason", "message"),
    [
        pytest.param([], [], "Starting", "0 of 2 pods are running", id="no pods yet"),
        pytest.param([pod(0), PENDING], [], "Starting", "1 of 2 pods are running", id="half"),
        pytest.param(
            [pod(0), pulling("ErrImagePull", "no such image")],
            [],
            "ImagePullBackOff",
            f"1 of 2 pods are running; pod one-a1-1-abcde: no such image{IMAGE_HELP}",
            id="an image that cannot be pulled",
        ),
        pytest.param(
            [
                pod(0),
                pulling(
                    "ImagePullBackOff",
                    'Back-off pulling image "r/x:1": ErrImagePull: no such image',
                ),
            ],
            [],
            "ImagePullBackOff",
            f"1 of 2 pods are running; pod one-a1-1-abcde: no such image{IMAGE_HELP}",
            id="the same while the kubelet waits reads the same",
        ),
        pytest.param(
            [pod(0), pod(1, phase="Pending", node_name="", unschedulable="0/2 nodes fit")],
            [],
            "Unschedulable",
            "1 of 2 pods are running; pod one-a1-1-abcde: 0/2 nodes fit",
            id="no room",
        ),
        pytest.param(
            [],
            [event("exceeded quota: gpu", "FailedCreate")],
            "FailedCreate",
            "0 of 2 pods are running; Job one-a1: exceeded quota: gpu: raise the quota, or ask for"
            " less in workers.resources",
            id="a Job that cannot make its pods",
        ),
        pytest.param(
            [pod(0), CREATING],
            [event('secret "s3" not found', "FailedMount")],
            "FailedMount",
            '1 of 2 pods are running; pod one-a1-1-abcde: secret "s3" not found: create it in the'
            " run's namespace, or correct the name in the spec",
            id="a Secret that is missing",
        ),
        pytest.param(
            [pod(0), CREATING],
            [
                event("MountVolume.SetUp failed for volume x", "FailedMount"),
                event("Unable to attach or mount volumes: timed out", "FailedMount"),
            ],
            "FailedMount",
            "1 of 2 pods are running; pod one-a1-1-abcde: MountVolume.SetUp failed for volume x",
            id="a cause is told before its consequence",
        ),
        pytest.param(
            [pod(0), CREATING],
            [event("Pulling image x", "Pulling", warning=False)],
            "Starting",
            "1 of 2 pods are running; pod one-a1-1-abcde: Pulling image x",
            id="an image that is being pulled",
        ),
        pytest.param(
            [pod(0), PENDING],
            [event("old", "FailedCreate")],
            "Starting",
            "1 of 2 pods are running",
            id="an Event of a pod that is not late says nothing",
        ),
    ],
)
def test_why_waiting(
    pods: list[PodView], events: list[ClusterEvent], reason: str, message: str
) -> None:
    assert why_waiting(job(), pods, 2, events) == (reason, message)


def test_an_event_that_names_no_reason_is_told_all_the_same() -> None:
    reason, message = why_waiting(job(), [pod(0)], 2, [event("no such account", "")])
    assert reason == "Starting"
    assert "no such account" in message


def test_long_messages_are_cut() -> None:
    _, message = why_waiting(job(), [pod(0, unschedulable="x" * 5000)], 2, [])
    assert len(message) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("jobs", "pods", "now", "late"),
    [
        pytest.param([], [], START, None, id="no Job"),
        pytest.param([job()], [], START + 1, None, id="a Job that was just made"),
        pytest.param([job()], [], START + 10, "job-uid", id="a Job without pods"),
        pytest.param([job()], [pod(0)], START + 10, "job-uid", id="a Job with too few pods"),
        pytest.param([job()], [pod(0), pod(1)], START + 10, None, id="all run"),
        pytest.param([job()], [pod(0), CREATING], START + 10, "pod-1", id="a pod that is late"),
        pytest.param([job()], [pod(0), CREATING], START + 1, None, id="a pod that was just placed"),
        pytest.param([job()], [pod(0), PENDING], START + 10, None, id="a pod without a node"),
        pytest.param([job(failed=True)], [], START + 10, None, id="a Job that is over"),
        pytest.param([job(deleting=True)], [], START + 10, None, id="a Job that goes"),
        pytest.param([job(owner_uid="x")], [], START + 10, None, id="a Job of others"),
    ],
)
def test_whose_events_are_read(
    jobs: list[JobView], pods: list[PodView], now: float, late: str | None
) -> None:
    assert late_object(run(), jobs, pods, 2, now) == late


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param({"lastTimestamp": "2027-01-15T08:00:00Z"}, START, id="an old Event"),
        pytest.param({"eventTime": "2027-01-15T08:00:00.000000Z"}, START, id="a new Event"),
        pytest.param(
            {
                "eventTime": "2020-01-01T00:00:00Z",
                "series": {"lastObservedTime": "2027-01-15T08:00:00Z"},
            },
            START,
            id="a series",
        ),
        pytest.param({"lastTimestamp": None}, 0.0, id="no time"),
    ],
)
def test_the_time_of_an_event(times: dict[str, object], expected: float) -> None:
    body = {"reason": "x", "message": "y", "type": "Warning", "metadata": {}, **times}
    assert cluster_event(body) == ClusterEvent("x", "y", True, expected)
