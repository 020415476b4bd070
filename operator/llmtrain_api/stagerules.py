"""A rule that several stages share: a block of the spec that a stage has no use for."""

from __future__ import annotations

from llmtrain_api.markers import Rule


def not_for(stage: str, block: str, advice: str) -> Rule:
    """Returns the rule that refuses a block, named alike in YAML and Python, with a stage."""
    return Rule(
        f"!has(self.{block}) || self.stage != '{stage}'",
        lambda spec: getattr(spec, block) is None or spec.stage != stage,
        advice,
        at=block,
        reason="FieldValueForbidden",
    )
