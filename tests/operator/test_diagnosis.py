"""Which rank failed first and why, from what the pods left behind."""

from __future__ import annotations

import pytest
from cluster_fake import START
from views import failed_pod, pod, words

from llmtrain_api.exits import ExitClass
from llmtrain_operator.diagnosis import describe, diagnose
from llmtrain_operator.snapshot import PodView

PEER_LOST = words(ExitClass.PEER_LOST, at=START)


@pytest.mark.parametrize(
    ("pods", "exit_class", "node"),
    [
        pytest.param(
            [
                failed_pod(0, 88, words(ExitClass.INTERNAL, at=START + 9)),
                failed_pod(1, 83, words(ExitClass.DIVERGED, at=START + 5, node=1)),
            ],
            ExitClass.DIVERGED,
            1,
            id="the earliest failure is the first one",
        ),
        pytest.param(
            [
                failed_pod(0, 86, PEER_LOST),
                failed_pod(1, 88, words(ExitClass.INTERNAL, at=START + 9, node=1)),
            ],
            ExitClass.INTERNAL,
            1,
            id="the loss of a peer is never the first failure",
        ),
        pytest.param(
            [failed_pod(0, 86, PEER_LOST), failed_pod(1, 86, words(ExitClass.PEER_LOST, node=1))],
            ExitClass.PEER_LOST,
            0,
            id="the loss of a peer is told when nobody knows more",
        ),
        pytest.param(
            [
                failed_pod(0, 85, words(ExitClass.PREEMPTED, at=START + 30)),
                failed_pod(1, 82, words(ExitClass.OUT_OF_MEMORY, at=START + 1, node=1)),
            ],
            ExitClass.OUT_OF_MEMORY,
            1,
            id="a pod that was stopped after a failure is not its cause",
        ),
        pytest.param(
            [
                failed_pod(0, 85, words(ExitClass.PREEMPTED, at=START + 1)),
                failed_pod(1, 88, words(ExitClass.INTERNAL, at=START + 9, node=1)),
            ],
            ExitClass.PREEMPTED,
            0,
            id="a preemption that came first is the cause",
        ),
        pytest.param(
            [failed_pod(0, 86, PEER_LOST), failed_pod(1, 137, exit_reason="OOMKilled")],
            ExitClass.OUT_OF_MEMORY,
            1,
            id="a container that was killed for its memory leaves no message",
        ),
        pytest.param(
            [failed_pod(0, 82)],
            ExitClass.OUT_OF_MEMORY,
            0,
            id="the exit code says what a lost message would have",
        ),
        pytest.param(
            [failed_pod(0, 139)], ExitClass.INTERNAL, 0, id="a crash is an internal error"
        ),
        pytest.param(
            [failed_pod(0, 128, exit_reason="StartError")],
            ExitClass.CONFIG,
            0,
            id="an image without the launcher cannot work",
        ),
        pytest.param(
            [failed_pod(0, 86, PEER_LOST), pod(1, gone=True)],
            ExitClass.NODE_LOST,
            1,
            id="a pod that vanished is the cause",
        ),
        pytest.param(
            [failed_pod(0, 86, PEER_LOST), pod(1, deletion_time=START, disruption="NodeLost")],
            ExitClass.NODE_LOST,
            1,
            id="a pod that hangs on a dead node is the cause",
        ),
        pytest.param(
            [pod(0, phase="Failed", reason="Evicted", message="low on memory")],
            ExitClass.PREEMPTED,
            0,
            id="a pod that its node evicts is preempted",
        ),
        pytest.param(
            [failed_pod(0, 137, disruption="PreemptionByScheduler")],
            ExitClass.PREEMPTED,
            0,
            id="a pod that made room for a better one is preempted",
        ),
        pytest.param(
            [failed_pod(0, 137, deletion_time=START)],
            ExitClass.PREEMPTED,
            0,
            id="a pod that is deleted without grace is preempted",
        ),
        pytest.param(
            [pod(0, phase="Failed", reason="UnexpectedAdmissionError", message="no device")],
            ExitClass.INTERNAL,
            0,
            id="a pod that the kubelet does not admit fails",
        ),
        pytest.param(
            [pod(0, phase="Failed", reason="InitContainerFailed", message="container i ended")],
            ExitClass.INTERNAL,
            0,
            id="an init container that fails keeps the trainer from running",
        ),
        pytest.param(
            [pod(0, phase="Failed", node_name="", deletion_time=START)],
            ExitClass.PREEMPTED,
            0,
            id="a pod that is deleted before it has a node is preempted",
        ),
        pytest.param(
            [failed_pod(0, 88, "Traceback\n  File x\nValueError: no")],
            ExitClass.INTERNAL,
            0,
            id="the last lines of the log stand in for a message",
        ),
        pytest.param(
            [failed_pod(0, 88, "{not json")],
            ExitClass.INTERNAL,
            0,
            id="a torn message is not believed",
        ),
    ],
)
def test_the_first_failure(pods: list[PodView], exit_class: ExitClass, node: int) -> None:
    diagnosis = diagnose(pods)
    assert (diagnosis.failure.exit_class, diagnosis.failure.node) == (exit_class, node)
    assert diagnosis.failure.message


@pytest.mark.parametrize(
    ("job_message", "exit_class"),
    [
        pytest.param("", ExitClass.PREEMPTED, id="a Job that somebody deleted is no failure"),
        pytest.param("limit reached", ExitClass.INTERNAL, id="a Job that failed is one"),
    ],
)
def test_no_pod_is_left(job_message: str, exit_class: ExitClass) -> None:
    assert diagnose([], job_message).failure.exit_class == exit_class
    assert (
        diagnose([failed_pod(0, 0, phase="Succeeded")], job_message).failure.exit_class
        == exit_class
    )


def test_a_message_is_passed_on_whole() -> None:
    said = words(
        ExitClass.INTERNAL,
        node=1,
        rank=9,
        step=120,
        exception="ValueError",
        lastLines=["a", "b"],
        latestCheckpoint="100-a1r0",
    )
    diagnosis = diagnose([failed_pod(1, 88, said)])
    failure = diagnosis.failure
    assert (failure.rank, failure.step, failure.exception) == (9, 120, "ValueError")
    assert (failure.last_lines, failure.exit_code) == (["a", "b"], 88)
    assert (failure.pod, failure.node_name) == ("one-a1-1-abcde", "node1")
    assert diagnosis.checkpoint == "100-a1r0"
    assert describe(2, failure) == (
        "attempt 2, node 1, rank 9, step 120: it was InternalError."
        " See the last lines and the logs of that rank."
    )


def test_the_newest_checkpoint_of_all_pods_is_told() -> None:
    pods = [
        failed_pod(0, 86, words(ExitClass.PEER_LOST, latestCheckpoint="90-a1r0")),
        failed_pod(1, 88, words(ExitClass.INTERNAL, latestCheckpoint="120-a1r0", node=1)),
    ]
    assert diagnose(pods).checkpoint == "120-a1r0"


def test_long_log_lines_are_cut() -> None:
    failure = diagnose([failed_pod(0, 1, "\n".join(["x" * 900] * 20))]).failure
    assert len(failure.last_lines) == 8
    assert all(len(line) == 256 for line in failure.last_lines)
