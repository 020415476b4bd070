"""Which model is the best so far: found in the logs alone, which a restart has as well. Pure.

What was measured before the first step does not count: no checkpoint holds that model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LOWER_IS_BETTER = ("loss", "perplexity")


@dataclass(frozen=True)
class Best:
    """The best evaluation."""

    step: int
    value: float
    later: int
    """Evaluations since then, none of which was better."""


def best(history: Sequence[Mapping[str, float]], metric: str) -> Best | None:
    """Returns the best evaluation, the first of equals; none before there is one.

    Args:
        history: transformers' `log_history`: a mapping per log, with its `step`.
        metric: `evaluation.metricForBestModel`.
    """
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    name = f"eval_{metric}"
    measured = {
        int(line["step"]): line[name] for line in history if name in line and line["step"] > 0
    }
    if not measured:
        return None
    step = max(measured, key=lambda step: (sign * measured[step], -step))
    return Best(step, measured[step], sum(each > step for each in measured))
