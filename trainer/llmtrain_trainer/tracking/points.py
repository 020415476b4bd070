"""From lines of the training log to points of curves, in the names that Hugging Face's tools use.

Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NO_CURVES = {"current_steps", "total_steps", "percentage"}
_NAMES = {"lr": "learning_rate", "throughput": "tokens_per_second"}
"""What transformers calls a value that LLaMA-Factory's log has under another name."""


@dataclass(frozen=True)
class Point:
    """What was logged at a step."""

    step: int
    values: Mapping[str, float]
    """Finite numbers by name, such as `train/loss` or `eval/loss`."""
    seconds: float
    """When the line was read, in seconds since 1970."""


def read_points(lines: Iterable[str], seconds: float) -> list[Point]:
    """Returns the points of some lines; a line without a number for a curve makes none."""
    found = (json.loads(line) for line in lines if line.strip())
    points = [Point(int(line["current_steps"]), curves_of(line), seconds) for line in found]
    return [point for point in points if point.values]


def curves_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line: those on held-out rows, or else those of training."""
    held_out = any(name.startswith("eval_") for name in line)
    curves = {}
    for name, value in line.items():
        if name in _NO_CURVES or name.startswith("eval_") != held_out or not _is_number(value):
            continue
        where = "eval" if held_out else "train"
        own = name.removeprefix("eval_")
        curves[f"{where}/{_NAMES.get(own, own)}"] = float(value)
    return curves


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
