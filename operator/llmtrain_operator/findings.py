"""What reports, pods and the spec add to the status of a run; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmtrain_api.progress import Resolved
from llmtrain_api.references import Parent
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import spec_hash
from llmtrain_api.status import Failure, RunProgress, RunStatus
from llmtrain_operator import attempts
from llmtrain_operator.diagnosis import last_words, step_of
from llmtrain_operator.reporting import model_words, summary, with_report
from llmtrain_operator.snapshot import PodView, Snapshot, parse_time


def parents_of(snapshot: Snapshot, status: RunStatus) -> tuple[Parent, ...]:
    """Returns the runs that this one starts from; once an attempt has started, always the same."""
    if status.attempts and status.resolved is not None and status.resolved.parents:
        return tuple(status.resolved.parents)
    return snapshot.lineage.parents


def with_lineage(status: RunStatus, spec: RunSpec, parents: Sequence[Parent]) -> RunStatus:
    """Returns `status` with the hash of the spec that it speaks of, and with its parents.

    A spec that still waits for one of them has no hash: it would not be that of what is trained.
    """
    resolved = status.resolved or Resolved()
    if status.attempts and resolved.spec_hash:
        return status  # The spec is frozen.
    changes = {
        "spec_hash": None if spec.references else spec_hash(spec),
        "parents": list(parents) or None,
    }
    resolved = resolved.model_copy(update=changes)
    return status.model_copy(update={"resolved": None if resolved == Resolved() else resolved})


def with_model(status: RunStatus, spec: RunSpec) -> RunStatus:
    """Returns `status` with what is trained, as the column MODEL shows it."""
    return status.model_copy(update={"model": model_words(spec, status.resolved)})


def with_report_of(snapshot: Snapshot, status: RunStatus) -> RunStatus:
    """Returns `status` with the newest report, if it is of the latest attempt."""
    report = snapshot.report
    if report is None or report.attempt != status.attempt:
        return status
    told = with_report(status, report, snapshot.reported_at)
    if status.attempts and status.attempts[-1].outcome is not None:
        return _not_going_on(told, status)
    return told


def _not_going_on(told: RunStatus, status: RunStatus) -> RunStatus:
    """Returns `told`, of an attempt that is over: nothing goes on, nor back behind its last words.

    Within an attempt steps may go back: a restart of its processes goes on from a checkpoint.
    """
    before, after = status.progress or RunProgress(), told.progress or RunProgress()
    progress = before if (after.step or 0) < (before.step or 0) else after
    changes: dict[str, Any] = {"progress": attempts.idle(progress)}
    if step_of(told.latest_checkpoint or "") < step_of(status.latest_checkpoint or ""):
        changes["latest_checkpoint"] = status.latest_checkpoint
    return told.model_copy(update=changes)


def with_image(status: RunStatus, pods: Sequence[PodView]) -> RunStatus:
    """Returns `status` with the image by digest, once a pod has pulled it."""
    image = next((pod.image for pod in pods if pod.image), None)
    if image is None or image == status.attempts[-1].image:
        return status
    resolved = (status.resolved or Resolved()).model_copy(update={"image": image})
    return attempts.with_latest(status, image=image).model_copy(update={"resolved": resolved})


def with_last_words(status: RunStatus, pods: Sequence[PodView]) -> RunStatus:
    """Returns `status` with what the pods of a finished attempt said at their end.

    Their last report may be lost, as when the operator was down.
    """
    words = [said for pod in pods if (said := last_words(pod)) is not None]
    progress = status.progress
    step = max((said.step or 0 for said in words), default=0)
    if progress is not None and progress.total_steps and step > (progress.step or 0):
        changes = {"step": step, "summary": summary(step, progress.total_steps)}
        status = status.model_copy(update={"progress": progress.model_copy(update=changes)})
    return with_checkpoint(
        status, max((said.latest_checkpoint for said in words), default="", key=step_of)
    )


def with_checkpoint(status: RunStatus, name: str) -> RunStatus:
    """Returns `status` with a checkpoint that a pod named at its end, if it is the newest."""
    if step_of(name) <= step_of(status.latest_checkpoint or ""):
        return status
    return status.model_copy(update={"latest_checkpoint": name})


def with_step(failure: Failure, status: RunStatus) -> Failure:
    """Returns `failure` with the step that the attempt reported last, where it names none."""
    progress, running = status.progress, parse_time(status.attempts[-1].running_time)
    if failure.step is not None or progress is None or running is None:
        return failure
    reported = parse_time(progress.last_update_time)
    if reported is None or reported < running:  # It is the step of an earlier attempt.
        return failure
    return failure.model_copy(update={"step": progress.step})
