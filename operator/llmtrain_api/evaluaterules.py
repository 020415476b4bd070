"""The rules about `stage: Evaluate` in a run's spec, in CEL and Python alike."""

from __future__ import annotations

from llmtrain_api.markers import Rule


def _not_for_evaluate(block: str, advice: str) -> Rule:
    return Rule(
        f"!has(self.{block}) || self.stage != 'Evaluate'",
        lambda spec: getattr(spec, block) is None or spec.stage != "Evaluate",
        advice,
        at=block,
        reason="FieldValueForbidden",
    )


EVALUATE_RULES = (
    _not_for_evaluate("tuning", "stage Evaluate trains no weights: remove it"),
    _not_for_evaluate(
        "training",
        "stage Evaluate trains no weights: remove it; batchSize, maxLength, precision and seed"
        " stand in evaluate",
    ),
    _not_for_evaluate(
        "evaluation",
        "stage Evaluate measures all rows of its data sets: remove it; its settings stand in"
        " evaluate",
    ),
    Rule(
        "!has(self.model) || !has(self.model.adapterUri) || self.stage == 'Evaluate'",
        lambda spec: (
            spec.model is None or spec.model.adapter_uri is None or spec.stage == "Evaluate"
        ),
        "only for stage Evaluate: remove it, and start from a model with the adapter merged in"
        " (output.export.mergeAdapter)",
        at="model.adapterUri",
        reason="FieldValueForbidden",
    ),
    Rule(
        "!has(self.evaluate) || !has(self.evaluate.predict)"
        " || self.datasets.all(d, d.format != 'Text')",
        lambda spec: (
            spec.evaluate is None
            or spec.evaluate.predict is None
            or all(dataset.format != "Text" for dataset in spec.datasets)
        ),
        "running text (format Text) has no answers to predict: remove it, or evaluate the text in"
        " a run of its own",
        at="evaluate.predict",
        reason="FieldValueForbidden",
    ),
)
"""The rules of `RunSpec` that speak of evaluation alone."""
