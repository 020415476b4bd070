"""The pods of one attempt as one thing: being made, starting, running, stopping, over; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from llmtrain_api.status import Attempt
from llmtrain_operator.snapshot import JobView, PodView, Snapshot

STUCK_AFTER_SECONDS = 15.0
"""A pod that is still there this long after its grace time is over is on a node that is dead."""


class GangState(Enum):
    """Where an attempt is."""

    UNMADE = auto()
    """Its Job has not been seen yet."""
    STARTING = auto()
    RUNNING = auto()
    LOST = auto()
    """A pod is lost, which the Job itself does not notice: it has to be deleted."""
    STOPPING = auto()
    """Decided, but some pods still stop."""
    COMPLETE = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Gang:
    """One attempt as it is in the cluster."""

    state: GangState
    job: JobView | None
    job_uid: str | None
    """UID of its Job, which may be gone; None if it was never made."""
    pods: tuple[PodView, ...]
    """Its pods; the ones that are gone included."""
    stuck: tuple[PodView, ...]
    """Pods that have to be removed by force."""


def observe_gang(snapshot: Snapshot, attempt: Attempt, nodes: int) -> Gang:
    """Returns the gang of an attempt that is not over."""
    job = next((j for j in own_jobs(snapshot) if j.name == attempt.job), None)
    job_uid = job.uid if job is not None else attempt.job_uid or _job_of_pods(snapshot, attempt)
    pods = members([pod for pod in snapshot.pods if pod.job_uid == job_uid])
    stuck = tuple(pod for pod in pods if is_stuck(pod, snapshot.now))
    state = _state(job, pods, stuck, nodes) if job_uid is not None else GangState.UNMADE
    return Gang(state, job, job_uid, pods, stuck)


def _job_of_pods(snapshot: Snapshot, attempt: Attempt) -> str | None:
    """Returns the UID of a Job that came and went before it was written down, if it left pods.

    The attempt's number is used then: a second Job under it would start a gang beside the first.
    """
    pods = own_pods(snapshot)
    return next((pod.job_uid for pod in pods if pod.attempt == attempt.number), None)


def members(pods: Sequence[PodView]) -> tuple[PodView, ...]:
    """Returns the pods that make up a gang, out of all that its Job has made.

    A Job that missed the answer to its own request makes a second pod for an index and deletes it
    again, and it replaces a pod that was deleted before it had a node: neither is a loss.
    """
    return tuple(pod for pod in pods if not (pod.vanished and _is_spare(pod, pods)))


def _is_spare(pod: PodView, pods: Sequence[PodView]) -> bool:
    if not pod.node_name:
        return True
    return any(
        other.index == pod.index and other.created <= pod.created and not other.vanished
        for other in pods
    )


def own_jobs(snapshot: Snapshot) -> list[JobView]:
    """Returns the Jobs that the run controls, by UID, oldest attempt first."""
    return [job for job in snapshot.jobs if job.owner_uid == snapshot.run.uid]


def own_pods(snapshot: Snapshot) -> list[PodView]:
    """Returns the pods of the run, by the UID in their label."""
    return [pod for pod in snapshot.pods if pod.run_uid == snapshot.run.uid]


def is_stuck(pod: PodView, now: float) -> bool:
    """Returns whether a pod should have stopped long ago."""
    if pod.ended or pod.deletion_time is None:
        return False
    return now > pod.deletion_time + STUCK_AFTER_SECONDS


def _state(
    job: JobView | None, pods: tuple[PodView, ...], stuck: tuple[PodView, ...], nodes: int
) -> GangState:
    ended = all(pod.ended for pod in pods)
    if job is None or job.deleting:
        return GangState.FAILED if job is None and ended else GangState.STOPPING
    if job.complete:
        return GangState.COMPLETE
    if job.failed:  # Jobs and pods are watched apart: why it failed may be yet to come.
        return GangState.FAILED if ended else GangState.STOPPING
    if stuck or any(pod.vanished for pod in pods):
        return GangState.LOST
    if job.ending:
        return GangState.STOPPING
    # A pod that is gone does not run, and the Job makes another one only after a failure.
    up = {pod.index for pod in pods if pod.running}
    return GangState.RUNNING if len(up) >= nodes else GangState.STARTING
