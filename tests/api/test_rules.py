"""Each rule of the API has a mistake, which pydantic and the API server are both asked about."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import specs
from apirules import rules_of
from mistakes import MISTAKES, Mistake
from pydantic import ValidationError

from llmtrain_api.datasets import Dataset
from llmtrain_api.markers import Rule
from llmtrain_api.run import RunSpec
from llmtrain_api.runrules import FORMATS


def told(mistake: Mistake) -> list[str]:
    """Returns what rules say of a mistake."""
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate(mistake.spec())
    return [error["msg"] for error in caught.value.errors() if error["type"] == "rule"]


TOLD = {message for mistake in MISTAKES for message in told(mistake)}


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=f"{rule.at or 'value'}: {rule.message[:60]}")
        for rule in dict.fromkeys(rules_of(RunSpec))
    ],
)
def test_each_rule_has_its_mistake(rule: Rule) -> None:
    pattern = re.sub("%[ds]", ".+", re.escape(rule.template or rule.message))
    start = re.escape(f"{rule.at}: ") if rule.at else ""
    assert [message for message in TOLD if re.fullmatch(start + pattern, message)]


def test_no_two_mistakes_have_one_name() -> None:
    names = [mistake.id for mistake in MISTAKES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("stage", specs.STAGES)
@pytest.mark.parametrize(
    ("owner", "block"),
    [
        ("Tokenizer", "tokenizerTraining"),
        ("Pretrain", "architecture"),
        ("Pretrain", "pretrain"),
        ("SFT", "sft"),
        ("DPO", "dpo"),
        ("KTO", "kto"),
        ("Reward", "reward"),
        ("Custom", "custom"),
        ("Evaluate", "evaluate"),
    ],
)
def test_a_block_is_taken_by_its_stage_alone(owner: str, block: str, stage: str) -> None:
    own = specs.everything(owner)[block]
    spec = specs.changed(specs.good(stage), block, own)
    if stage == owner:
        assert RunSpec.model_validate(spec).to_dict()[block]
        return
    with pytest.raises(ValidationError, match=rf"\b{block}\b") as caught:
        RunSpec.model_validate(spec)
    (error,) = caught.value.errors()
    assert error["type"] == "rule"


@pytest.mark.parametrize("stage", specs.STAGES)
@pytest.mark.parametrize("rows", get_args(Dataset.model_fields["format"].annotation))
def test_a_stage_reads_its_own_formats(stage: str, rows: str) -> None:
    datasets = [{"uri": "s3://data/rows.jsonl", "format": rows}]
    spec = specs.changed(specs.good(stage), "datasets", datasets)
    if rows in FORMATS[stage]:
        assert RunSpec.model_validate(spec).datasets[0].format == rows
        return
    with pytest.raises(ValidationError, match=f"datasets: stage {stage} reads the format"):
        RunSpec.model_validate(spec)
