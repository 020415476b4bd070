"""The rules about `stage: Evaluate` in a run's spec, in CEL and Python alike."""

from __future__ import annotations

from llmtrain_api.markers import Rule
from llmtrain_api.stagerules import not_for

EVALUATE_RULES = (
    not_for("Evaluate", "tuning", "stage Evaluate trains no weights: remove it"),
    not_for(
        "Evaluate",
        "training",
        "stage Evaluate trains no weights: remove it; batchSize, maxLength, precision and seed"
        " stand in evaluate",
    ),
    not_for(
        "Evaluate",
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
