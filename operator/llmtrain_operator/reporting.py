"""From what the trainer reports to what `kubectl get` shows: rounding, ETA, bounds; pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from llmtrain_api.progress import Artifacts, Progress, Report, Resolved
from llmtrain_api.run import RunSpec
from llmtrain_api.status import MAX_CHECKPOINTS_KEPT, RunProgress, RunStatus
from llmtrain_operator.snapshot import format_time

_MOST_OF_A_URI = 256  # Letters in a status, which is to stay small; the spec has it whole.


def with_report(status: RunStatus, report: Report, reported_at: float) -> RunStatus:
    """Returns `status` with what the latest attempt reported last."""
    changes: dict[str, Any] = {
        "progress": _progress(status.progress or RunProgress(), report, reported_at)
    }
    if report.checkpoints:
        checkpoints = list(report.checkpoints)[:MAX_CHECKPOINTS_KEPT]
        changes["checkpoints"] = checkpoints
        changes["latest_checkpoint"] = checkpoints[0].name
    if report.artifacts is not None:
        changes["artifacts"] = merged(status.artifacts or Artifacts(), report.artifacts)
    if report.resolved is not None:
        # The operator itself knows these better.
        own = {"spec_hash": None, "image": None, "parents": None}
        told = report.resolved.model_copy(update=own)
        changes["resolved"] = merged(status.resolved or Resolved(), told)
    return status.model_copy(update=changes)


def merged(old: Any, new: Any) -> Any:
    """Returns the model `old` with the fields that `new` knows."""
    return old.model_copy(update=new.model_dump(exclude_none=True, exclude_unset=True))


def _progress(old: RunProgress, report: Report, reported_at: float) -> RunProgress:
    changes: dict[str, Any] = {
        "activity": report.activity,
        "message": report.message or None,
        "last_update_time": format_time(reported_at),
    }
    if report.progress is not None:
        changes |= _numbers(report.progress)
    return old.model_copy(update=changes)


def _numbers(progress: Progress) -> dict[str, Any]:
    numbers = {
        "step": progress.step,
        "total_steps": progress.total_steps,
        "summary": summary(progress.step, progress.total_steps),
        "eta": eta(progress),
        "epoch": f"{progress.epoch:.2f}",
        "loss": _rounded(progress.loss),
        "eval_loss": _rounded(progress.eval_loss),
        "best_step": progress.best_step,
        "learning_rate": _rounded(progress.learning_rate, digits=2),
        "tokens_per_second": _whole(progress.tokens_per_second),
        "tokens_per_second_per_device": _whole(progress.tokens_per_second_per_device),
        "mfu": _share(progress.mfu),
        "data_wait": _share(progress.data_wait),
        "peak_memory_device": _gibibytes(progress.peak_memory_device),
        "peak_memory_host": _gibibytes(progress.peak_memory_host),
    }
    # All but what the pace says: what a report does not know has not changed.
    return {k: v for k, v in numbers.items() if v is not None or k == "eta"}


def model_words(spec: RunSpec, resolved: Resolved | None) -> str | None:
    """Returns what the column MODEL shows: where the model is, or what a new one is.

    `resolved` brings the size of a new model, which the trainer counts.
    """
    if spec.tokenizer_training is not None:
        settings = spec.tokenizer_training
        return f"new {settings.algorithm} {settings.vocab_size}"
    if spec.architecture is None:
        uri = spec.source_uri
        if not uri and spec.references:  # It waits for it.
            return f"result of {next(iter(spec.references.values())).name}"
        return (uri if len(uri) <= _MOST_OF_A_URI else f"{uri[: _MOST_OF_A_URI - 1]}…") or None
    size = resolved.total_parameters if resolved is not None else None
    return f"new {spec.architecture.family}" + (f" {count(size)}" if size else "")


def count(number: int) -> str:
    """Returns a number of parameters as people say it, such as `12.3M`."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def summary(step: int, total_steps: int) -> str:
    """Returns both numbers as in the column STEP, such as `120/500`.

    A command of the user's own may not know how many there are in all; then it is `120`.
    """
    return f"{step}/{total_steps}" if total_steps else str(step)


def eta(progress: Progress) -> str | None:
    """Returns the time to the last step at the present pace, or None if the pace is unknown."""
    remaining = progress.total_steps - progress.step
    if progress.seconds_per_step is None or remaining <= 0:
        return None
    return duration(remaining * progress.seconds_per_step)


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units, such as `45s`, `3m20s`, `2h5m`, `4d3h`."""
    whole = max(0, round(seconds))
    units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")]
    for (size, unit), (next_size, next_unit) in pairwise(units):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size}{unit}" + (f"{rest}{next_unit}" if rest else "")
    return f"{whole}s"


def _rounded(value: float | None, digits: int = 4) -> str | None:
    return None if value is None else f"{value:.{digits}g}"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _gibibytes(value: int | None) -> str | None:
    return None if value is None else f"{value / 2**30:.1f}Gi"


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"
