"""Why the workers of an attempt are not all running yet, in a word and in a sentence; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import ClusterEvent, JobView, PodView

MAX_MESSAGE = 1024
WAYS_OUT = (
    ("exceeded quota", "raise the quota, or ask for less in workers.resources"),
    ("per Container is", "ask for what the namespace's LimitRange allows in workers.resources"),
    ("per Pod is", "ask for what the namespace's LimitRange allows in workers.resources"),
    ("service account", "create it, or correct workers.serviceAccountName"),
    ("PriorityClass", "create it, or correct workers.priorityClassName"),
    ("violates PodSecurity", "remove what it forbids from workers.podTemplate"),
    ("secret", "create it in the run's namespace, or correct the name in the spec"),
    ("configmap", "create it in the run's namespace, or correct the name in the spec"),
    (
        "nodes are available",
        "ask for less in workers.resources, correct workers.nodeSelector, affinity or tolerations,"
        " or add nodes",
    ),
    ("image", "correct workers.image or its registry, or name a key in workers.imagePullSecrets"),
)
"""What the cluster says in its message, and what helps against it; the first that fits counts."""
IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
BACK_OFF_PREFIX = re.compile(r'^Back-off pulling image "[^"]*": ErrImagePull: ')
TOOK_TOO_LONG = "Unable to attach or mount volumes"
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
            # The two take turns for one and the same trouble.
            reason = IMAGE_PULL_BACK_OFF if pod.waiting == "ErrImagePull" else pod.waiting
            message = BACK_OFF_PREFIX.sub("", pod.waiting_message)
            return reason, _told(count, f"pod {pod.name}", message)
    for pod in pods:
        if pod.unschedulable:
            return Reason.UNSCHEDULABLE, _told(count, f"pod {pod.name}", pod.unschedulable)
    warning = _most_telling([event for event in events if event.warning])
    late = late_pod(pods)
    if warning and len(pods) < nodes:
        return _reason(warning), _told(count, f"Job {job.name}", warning.message)
    if warning and late is not None:
        return _reason(warning), _told(count, f"pod {late.name}", warning.message)
    if events and late is not None:
        return Reason.STARTING, _cut(f"{count}; pod {late.name}: {events[-1].message}")
    return Reason.STARTING, count


def late_pod(pods: Sequence[PodView]) -> PodView | None:
    """Returns the first pod that has a node and whose container is still being prepared."""
    for pod in pods:
        if not pod.ended and pod.phase == "Pending" and pod.waiting in ON_ITS_WAY and pod.node_name:
            return pod
    return None


def _most_telling(warnings: list[ClusterEvent]) -> ClusterEvent | None:
    """Returns the newest warning, but for one that only says that something took too long."""
    telling = [warning for warning in warnings if not warning.message.startswith(TOOK_TOO_LONG)]
    return next(reversed(telling or warnings), None)


def _reason(warning: ClusterEvent) -> str:
    return warning.reason or Reason.STARTING  # Events need not name one.


def _told(count: str, who: str, message: str) -> str:
    """Returns who cannot go on and why, in the cluster's words, with the way out."""
    return with_way_out(f"{count}; {who}: {message.rstrip('.')}", message)


def with_way_out(words: str, message: str) -> str:
    """Returns `words`, cut, with what helps against the trouble that the cluster's `message` is."""
    way_out = next((out for sign, out in WAYS_OUT if sign in message), "")
    return f"{_cut(words)}: {way_out}" if way_out else _cut(words)


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
