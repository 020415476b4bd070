"""From what rank 0 writes into the working folder to what the operator is told. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from llmtrain_api.progress import Progress


def progress_of(lines: Sequence[str], before: Progress | None) -> Progress | None:
    """Returns the progress after some more lines of the training log.

    A line holds what is known at its time: the training loss or the evaluation's, so values that a
    line lacks stay. NaN and infinity are left out: a status cannot hold them.
    """
    progress = before
    for line in lines:
        values = json.loads(line)
        step, total = values.get("current_steps"), values.get("total_steps")
        if step is None or total is None:
            continue
        known = progress or Progress(step=step, total_steps=total)
        news = {
            "step": step,
            "total_steps": total,
            "epoch": _finite(values.get("epoch")),
            "loss": _finite(values.get("loss")),
            "eval_loss": _finite(values.get("eval_loss")),
            "best_step": values.get("best_step"),
            "learning_rate": _finite(values.get("lr")),
            "tokens_per_second": _finite(values.get("throughput")),
            "tokens_per_second_per_device": _finite(values.get("throughput_per_device")),
            "mfu": _finite(values.get("mfu")),
            "data_wait": _finite(values.get("data_wait")),
            "peak_memory_device": values.get("peak_memory_device"),
            "peak_memory_host": values.get("peak_memory_host"),
            "seconds_per_step": _finite(values.get("seconds_per_step")),
        }
        progress = known.model_copy(update={k: v for k, v in news.items() if v is not None})
    return progress


def _finite(value: object) -> float | None:
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def merge_logs(parts: Sequence[Sequence[str]]) -> list[str]:
    """Returns one training log out of those of all attempts, oldest first.

    A later attempt went on from a checkpoint: the steps that it did again replace the earlier ones.
    """
    merged: list[tuple[int, str]] = []
    for part in parts:
        rows = [(_step_of(line), line) for line in part if line.strip()]
        if rows:
            first = min(step for step, _ in rows)
            merged = [row for row in merged if row[0] < first] + rows
    return [line for _, line in merged]


def _step_of(line: str) -> int:
    values: dict[str, Any] = json.loads(line)
    return int(values["current_steps"])
