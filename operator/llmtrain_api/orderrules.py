"""The rules about the order of rows and about what is measured, in CEL and Python alike."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmtrain_api.markers import Rule

_METRICS = {
    "Pretrain": ("loss", "perplexity", "mean_token_accuracy"),
    "SFT": ("loss", "perplexity", "mean_token_accuracy"),
    "DPO": ("loss", "mean_token_accuracy", "rewards/accuracies", "rewards/margins"),
    "KTO": ("loss", "rewards/margins"),
    "Reward": ("loss", "accuracy", "margin"),
}
_GROUPED = ("SFT", "DPO", "Reward")


def _has_metric(stage: str, metrics: tuple[str, ...], spec: Any) -> bool:
    return (
        spec.stage != stage
        or spec.evaluation is None
        or spec.evaluation.metric_for_best_model in (None, *metrics)
    )


_METRIC_RULES = tuple(
    Rule(
        f"self.stage != '{stage}' || !has(self.evaluation)"
        " || !has(self.evaluation.metricForBestModel)"
        f" || self.evaluation.metricForBestModel in {list(metrics)}",
        partial(_has_metric, stage, metrics),
        f"stage {stage} measures {', '.join(metrics)}: use one of them",
        at="evaluation.metricForBestModel",
    )
    for stage, metrics in _METRICS.items()
)

ORDER_RULES = (
    *_METRIC_RULES,
    Rule(
        "!has(self.evaluation) || !self.evaluation.atStart || self.stage != 'Tokenizer'",
        lambda spec: (
            spec.evaluation is None or not spec.evaluation.at_start or spec.stage != "Tokenizer"
        ),
        "stage Tokenizer is measured once, at the end, without a model: remove it",
        at="evaluation.atStart",
        reason="FieldValueForbidden",
    ),
    Rule(
        f"!has(self.training) || !self.training.groupByLength || self.stage in {list(_GROUPED)}",
        lambda spec: (
            spec.training is None or not spec.training.group_by_length or spec.stage in _GROUPED
        ),
        "only for stages SFT, DPO and Reward: Pretrain's sequences are all as long, and KTO holds"
        " rows against their neighbours; remove it",
        at="training.groupByLength",
        reason="FieldValueForbidden",
    ),
    Rule(
        "!has(self.training) || !self.training.groupByLength || !has(self.sft)"
        " || !self.sft.packing",
        lambda spec: (
            spec.training is None
            or not spec.training.group_by_length
            or spec.sft is None
            or not spec.sft.packing
        ),
        "packed rows are all about as long: remove it, or set sft.packing: false",
        at="training.groupByLength",
        reason="FieldValueForbidden",
    ),
)
"""Rules of `RunSpec`."""
