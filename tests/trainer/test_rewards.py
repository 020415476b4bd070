"""What preference stages report: which numbers, the plot, and the card."""

from __future__ import annotations

from typing import Any

import jobs
import pytest
import yaml

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data.tokens import Account, DatasetAccount
from llmtrain_trainer.stages import rewards
from llmtrain_trainer.stages.card import Kind, write_card
from llmtrain_trainer.stages.results import collect

ACCOUNT = Account(
    key="k", datasets=[DatasetAccount(uri="s3://data/a.jsonl", sha256="aa", rows=3, dropped=1)]
)
OF_DPO = [
    {"loss": 0.7, "step": 1, "rewards/chosen": 0.0, "rewards/accuracies": 0.0, "entropy": 1.0},
    {"loss": 0.6, "step": 2, "rewards/chosen": 0.5, "rewards/accuracies": 1.0},
    {"eval_loss": 0.5, "step": 2, "eval_rewards/chosen": 0.4, "eval_rewards/accuracies": 0.75},
]
OF_KTO = [{"loss": 0.5, "step": 1, "rewards/chosen": 0.1, "kl": 0.0}, {"loss": 0.4, "step": 2}]
OF_REWARD = [
    {"loss": 0.7, "step": 1, "mean_reward": 0.1, "margin": 0.2, "accuracy": 0.5},
    {"eval_loss": 0.7, "step": 1, "eval_mean_reward": 0.1, "eval_accuracy": 0.5},
]


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        pytest.param(
            OF_DPO[1],
            {"rewards/chosen": 0.5, "rewards/accuracies": 1.0, "accuracy": 1.0},
            id="of DPO, with LLaMA-Factory's name for the accuracy",
        ),
        pytest.param(
            OF_DPO[2],
            {
                "eval_rewards/chosen": 0.4,
                "eval_rewards/accuracies": 0.75,
                "eval_accuracy": 0.75,
            },
            id="of rows held out",
        ),
        pytest.param(OF_KTO[0], {"rewards/chosen": 0.1, "kl": 0.0}, id="of KTO"),
        pytest.param(
            OF_REWARD[0],
            {"mean_reward": 0.1, "margin": 0.2, "accuracy": 0.5},
            id="of a reward model",
        ),
        pytest.param({"loss": 1.0, "mean_token_accuracy": 0.5}, {}, id="nothing of SFT"),
    ],
)
def test_pick(logs: dict[str, float], expected: dict[str, float]) -> None:
    assert rewards.pick(logs) == expected


def test_the_last_rewards_are_those_of_the_last_log_that_has_some() -> None:
    assert rewards.last(OF_DPO)["rewards/chosen"] == 0.5
    assert rewards.last(OF_KTO) == {"rewards/chosen": 0.1, "kl": 0.0}
    assert rewards.last([{"loss": 1.0, "step": 1}]) == {}


@pytest.mark.parametrize("history", [OF_DPO, OF_REWARD], ids=["DPO", "Reward"])
def test_a_loss_that_compares_answers_has_no_perplexity(history: list[dict[str, float]]) -> None:
    numbers = collect({}, history, ACCOUNT, "cafe")
    assert "eval_loss" in numbers
    assert "perplexity" not in numbers


def card(stage: str, kind: Kind, changes: dict[str, Any]) -> str:
    dataset = {"uri": "s3://data/a.jsonl", "format": "KTO" if stage == "KTO" else "Preference"}
    changes = {"stage": stage, "datasets": [dataset], "tuning.lora.dropout": 0, **changes}
    spec = RunSpec.model_validate(jobs.small_spec(changes))
    return write_card("my-run", kind, spec, ACCOUNT, {}, {})


FULL = {"tuning": {"method": "Full"}}


@pytest.mark.parametrize(
    ("stage", "kind", "changes", "part"),
    [
        pytest.param(
            "DPO",
            "adapter",
            {},
            "A LoRA adapter for direct preference optimisation, trained from `s3://models/tiny/` by"
            " llmtrain. The reference model was `s3://models/tiny/`.",
            id="DPO against the model itself",
        ),
        pytest.param(
            "KTO",
            "model",
            {**FULL, "kto": {"referenceModel": {"uri": "s3://models/other/"}}},
            "A model aligned by Kahneman-Tversky optimisation of all weights, trained from"
            " `s3://models/tiny/` by llmtrain. The reference model was `s3://models/other/`.",
            id="KTO against another model",
        ),
        pytest.param("DPO", "model", {"dpo": {"beta": 0.25}}, "beta: 0.25", id="its settings"),
        pytest.param(
            "Reward",
            "adapter",
            {},
            'AutoModelForSequenceClassification.from_pretrained("path/to/the/base/model",'
            " num_labels=1)",
            id="how a reward adapter is loaded",
        ),
        pytest.param(
            "Reward",
            "model",
            FULL,
            "Dropped pairs have an answer that is longer than `maxLength`.",
            id="what a reward model was not trained on",
        ),
    ],
)
def test_a_card(stage: str, kind: Kind, changes: dict[str, Any], part: str) -> None:
    text = card(stage, kind, changes)
    assert part in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["tags"][1] == stage.lower()
    expected = "text-classification" if stage == "Reward" else "text-generation"
    assert front["pipeline_tag"] == expected
    assert ("The reference model" in text) == (stage != "Reward")
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
