"""Why an attempt failed: the first failing rank, found from what its pods left behind; pure.

A pod that ended by our launcher left a termination message. One that was killed as a whole (out of
memory, a lost node, an image that cannot start) left only what the kubelet and Kubernetes say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from llmtrain_api.exits import EXIT_POLICIES, ExitClass, TerminationMessage, class_of_exit_code
from llmtrain_api.layout import LAUNCHER
from llmtrain_api.status import Failure
from llmtrain_operator.snapshot import PodView, parse_time

MAX_MESSAGE = 1024
MAX_LINE = 256
MAX_LINES = 8
NEVER = float("inf")

# Reasons of the condition DisruptionTarget, and of a pod that the kubelet failed as a whole.
MOVED_AWAY = {
    "PreemptionByScheduler": "a pod of higher priority took its place",
    "EvictionByEvictionAPI": "it was evicted, as when a node is drained",
    "TerminationByKubelet": "its node had to stop it",
    "Evicted": "its node ran short of a resource",
    "Terminated": "its node was shut down",
    "NodeShutdown": "its node was shut down",
    "Preempting": "a critical pod took its place",
}
NODE_IS_LOST = {
    "DeletionByTaintManager": "its node does not answer, or was tainted",
    "DeletionByPodGC": "its node is gone",
    "NodeLost": "its node does not answer",
}
SIGKILLED = 137
CANNOT_START = ("StartError", "ContainerCannotRun")


@dataclass(frozen=True)
class _Found:
    """How one pod failed, and when."""

    failure: Failure
    time: float
    checkpoint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The first failure of an attempt and the newest checkpoint that its pods knew of."""

    failure: Failure
    checkpoint: str = ""


def diagnose(pods: Sequence[PodView], job_message: str = "") -> Diagnosis:
    """Returns why an attempt failed, from its pods.

    The earliest failure is the first one, but the loss of a peer is only ever a consequence.
    `job_message` is told where no pod is left to say more.
    """
    found = [failed for pod in pods if (failed := _how_it_failed(pod)) is not None]
    if not found:
        text = f"no pod is left to say why: {job_message or 'its Job was deleted'}"
        exit_class = ExitClass.INTERNAL if job_message else ExitClass.PREEMPTED
        return Diagnosis(Failure(exit_class=exit_class, message=text[:MAX_MESSAGE]))
    first = min(found, key=lambda f: (f.failure.exit_class == ExitClass.PEER_LOST, f.time))
    checkpoint = max((f.checkpoint for f in found), key=step_of)
    return Diagnosis(first.failure, checkpoint)


def describe(attempt: int, failure: Failure) -> str:
    """Returns a failure in words: where, what, and what to do."""
    where = [f"attempt {attempt}"]
    where += [f"node {failure.node}"] if failure.node is not None else []
    where += [f"rank {failure.rank}"] if failure.rank is not None else []
    where += [f"step {failure.step}"] if failure.step is not None else []
    hint = EXIT_POLICIES[ExitClass(failure.exit_class)].hint
    message = failure.message.rstrip(".")
    text = ", ".join(where) + ": " + message + ("" if message.endswith("?") else ".")
    return f"{text} {hint}".rstrip()


def last_words(pod: PodView) -> TerminationMessage | None:
    """Returns the launcher's termination message, or None if it left none."""
    try:
        return TerminationMessage.model_validate_json(pod.exit_message)
    except ValidationError:
        return None  # FallbackToLogsOnError put the last lines of the log there, or nothing.


def _how_it_failed(pod: PodView) -> _Found | None:
    if pod.exit_code == 0 or (pod.exit_code is None and pod.phase == "Succeeded"):
        return None
    if pod.exit_code is None:
        return _lost(pod)
    words = last_words(pod)
    if words is None:
        return _killed(pod, pod.exit_code)
    failure = Failure(
        exit_class=words.exit_class,
        message=words.message[:MAX_MESSAGE],
        node=words.node,
        node_name=pod.node_name or None,
        pod=pod.name,
        rank=words.rank,
        step=words.step,
        exception=words.exception or None,
        last_lines=words.last_lines,
        exit_code=pod.exit_code,
    )
    return _Found(failure, parse_time(words.time) or _end(pod), words.latest_checkpoint)


def _killed(pod: PodView, code: int) -> _Found:
    """Returns the failure of a container that ended without a message of ours."""
    if pod.disruption or (pod.deletion_time is not None and code == SIGKILLED):
        return _Found(_moved(pod, code), _end(pod))
    exit_class = class_of_exit_code(code, pod.exit_reason)
    text = f"the container ended with exit code {code} ({pod.exit_reason or 'no reason given'})"
    if pod.exit_reason == "OOMKilled":
        text = "the container was killed because it used more memory than its limit (OOMKilled)"
    if pod.exit_reason in CANNOT_START:
        exit_class = ExitClass.CONFIG
        text = (
            f"the image cannot start the launcher ({LAUNCHER}): set a trainer image in"
            " workers.image, or one that is built from it"
        )
    lines = [line[:MAX_LINE] for line in pod.exit_message.splitlines() if line.strip()]
    return _Found(_failure(pod, exit_class, text, code, lines[-MAX_LINES:]), _end(pod))


def _lost(pod: PodView) -> _Found | None:
    """Returns the failure of a pod whose container never said how it ended, if it is lost."""
    deleted = pod.deletion_time is not None
    if pod.disruption or pod.reason in MOVED_AWAY or pod.reason in NODE_IS_LOST:
        return _Found(_moved(pod, None), _end(pod))
    if pod.phase == "Failed" and pod.reason:
        text = f"the kubelet failed the pod: {pod.reason}: {pod.message}"
        return _Found(_failure(pod, ExitClass.INTERNAL, text), _end(pod))
    if deleted and not pod.node_name:
        text = "the pod was deleted before it had a node"
        return _Found(_failure(pod, ExitClass.PREEMPTED, text), _end(pod))
    if pod.gone or deleted or pod.phase == "Failed":
        text = "the pod was deleted, or its node was lost, before it could say how it ended"
        return _Found(_failure(pod, ExitClass.NODE_LOST, text), _end(pod))
    return None


def _moved(pod: PodView, code: int | None) -> Failure:
    """Returns the failure of a pod that Kubernetes took away."""
    reason = pod.disruption or pod.reason or "it was deleted, and killed before it could save"
    if reason in NODE_IS_LOST:
        return _failure(pod, ExitClass.NODE_LOST, f"the pod is lost: {NODE_IS_LOST[reason]}", code)
    why = MOVED_AWAY.get(reason, reason)
    detail = f" ({pod.message})" if pod.message else ""
    return _failure(pod, ExitClass.PREEMPTED, f"the pod was stopped: {why}{detail}", code)


def _failure(
    pod: PodView,
    exit_class: ExitClass,
    message: str,
    code: int | None = None,
    lines: Sequence[str] = (),
) -> Failure:
    return Failure(
        exit_class=exit_class,
        message=message[:MAX_MESSAGE],
        node=pod.index,
        node_name=pod.node_name or None,
        pod=pod.name,
        last_lines=list(lines),
        exit_code=code,
    )


def _end(pod: PodView) -> float:
    """Returns when a pod's trouble began, as well as it is known."""
    for time in (pod.disruption_time, pod.finished, pod.deletion_time):
        if time is not None:
            return time
    return NEVER


def step_of(checkpoint: str) -> int:
    """Returns the step of a checkpoint's name, such as 120 of `120-a1r0`; -1 of no name."""
    step = checkpoint.partition("-")[0]
    return int(step) if step.isdigit() else -1
