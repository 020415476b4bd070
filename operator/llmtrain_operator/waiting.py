"""Why the workers of an attempt are not all running yet, in a word and in a sentence; pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import ClusterEvent, JobView, PodView

MAX_MESSAGE = 1024
ON_ITS_WAY = ("", "ContainerCreating", "PodInitializing")
EVENTS_AFTER_SECONDS = 3.0
"""A Job or pod that is this late is asked for its Events."""


def why_waiting(
    job: JobView, pods: Sequence[PodView], nodes: int, events: Sequence[ClusterEvent]
) -> tuple[str, str]:
    """Returns the reason and the message of `WorkersReady=False`.

    `events` are those of the Job where it has too few pods, else of the pod that `late_pod` names.
    """
    running = sum(pod.running for pod in pods)
    count = f"{running} of {nodes} pods are running"
    for pod in pods:
        if pod.waiting not in ON_ITS_WAY:
            return pod.waiting, _cut(f"{count}; pod {pod.name}: {pod.waiting_message}")
    for pod in pods:
        if pod.unschedulable:
            return Reason.UNSCHEDULABLE, _cut(f"{count}; pod {pod.name}: {pod.unschedulable}")
    warnings = [event for event in events if event.warning]
    late = late_pod(pods)
    if warnings and len(pods) < nodes:
        return warnings[-1].reason, _cut(f"{count}; Job {job.name}: {warnings[-1].message}")
    if warnings and late is not None:
        return warnings[-1].reason, _cut(f"{count}; pod {late.name}: {warnings[-1].message}")
    if events and late is not None:
        return Reason.STARTING, _cut(f"{count}; pod {late.name}: {events[-1].message}")
    return Reason.STARTING, count


def late_pod(pods: Sequence[PodView]) -> PodView | None:
    """Returns the first pod that has a node and whose container is still being prepared."""
    for pod in pods:
        if not pod.ended and pod.phase == "Pending" and pod.waiting in ON_ITS_WAY and pod.node_name:
            return pod
    return None


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
