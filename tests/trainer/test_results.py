"""The numbers, the plot and the card of a finished run."""

from __future__ import annotations

import json
import math
from typing import Any

import jobs
import pytest
import yaml

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data.tokens import Account, DatasetAccount
from llmtrain_trainer.stages.card import Kind, write_card
from llmtrain_trainer.stages.results import collect, mean_loss, perplexity

ACCOUNT = Account(
    key="k",
    datasets=[
        DatasetAccount(
            uri="s3://data/a.jsonl", sha256="aa", rows=10, train=7, evaluation=2, dropped=1
        ),
        DatasetAccount(uri="s3://data/b.jsonl", sha256="bb", rows=5, train=5, truncated=3),
    ],
)
HISTORY = [
    {"loss": 4.0, "step": 10, "epoch": 0.5},
    {"loss": 2.0, "step": 20, "epoch": 1.0},
    {"eval_loss": 1.0, "eval_runtime": 3.0, "step": 20, "epoch": 1.0},
    {"loss": 1.0, "step": 25, "epoch": 1.25},
]


def test_collect() -> None:
    numbers = collect({"train_runtime": 9.0, "total_flos": 1.0}, HISTORY, ACCOUNT, "cafe")
    assert numbers["total_steps"] == 25
    assert numbers["epoch"] == 1.25
    assert numbers["train_loss"] == (4 * 10 + 2 * 10 + 1 * 5) / 25
    assert numbers["eval_loss"] == 1.0
    assert numbers["perplexity"] == math.e
    assert (numbers["rows"], numbers["data_train"], numbers["data_truncated"]) == (15, 12, 3)
    assert numbers["weights_sha256"] == "cafe"


def test_speed_and_memory_are_those_of_the_attempt() -> None:
    measured = {"train_tokens_per_second": 10.0, "train_data_wait": 0.1, "peak_memory_host": 7}
    numbers = collect({**measured, "epoch": 1.0}, HISTORY, ACCOUNT, "cafe")
    assert measured.items() <= numbers.items()


def test_a_run_without_evaluation_has_no_perplexity() -> None:
    assert "perplexity" not in collect({}, HISTORY[:2], ACCOUNT, "cafe")


def test_the_numbers_are_those_of_the_model_that_is_the_result() -> None:
    history = [
        {"eval_loss": 1.0, "step": 10},
        {"eval_loss": 1e9, "eval_perplexity": math.inf, "step": 20},
    ]
    best = {"best_metric": "eval_loss", "best_step": 10, "best_value": 1.0, "model_step": 10}
    numbers = collect(best, history, ACCOUNT, "cafe")
    assert {name: numbers[name] for name in best} == best
    assert (numbers["eval_loss"], numbers["total_steps"]) == (1.0, 20)
    last = collect({}, history, ACCOUNT, "cafe")
    assert last["perplexity"] == last["eval_perplexity"] == "Infinity"
    assert json.loads(json.dumps(last, allow_nan=False)) == last


def test_mean_loss_of_nothing_is_nothing() -> None:
    assert mean_loss([]) is None


def test_perplexity_of_a_huge_loss_is_infinite() -> None:
    assert perplexity(1e6) == math.inf


def card(kind: Kind, changes: dict[str, Any] | None = None, **more: Any) -> str:
    spec = RunSpec.model_validate(jobs.small_spec(changes))
    numbers = {"train_loss": 1.23456789, "eval_loss": None}
    return write_card("my-run", kind, spec, ACCOUNT, numbers, {"torch": "2.15.0"}, **more)


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_card_tells_base_data_arguments_results_and_how_to_load(kind: Kind) -> None:
    text = card(kind)
    front, body = text.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front)["pipeline_tag"] == "text-generation"
    assert body.startswith("\n# my-run\n")
    for part in (
        "`s3://models/tiny/`",
        "| `s3://data/a.jsonl` | 10 | 7 | 2 | 1 | 0 | 0 | `aa` |",
        "learningRate: 0.005",
        "gradientAccumulationSteps: 2",
        "| train_loss | 1.23457 |",
        'from_pretrained("path/to/this/folder")',
        "torch 2.15.0",
    ):
        assert part in body
    assert "eval_loss" not in body
    assert ("PeftModel" in body) == (kind == "adapter")


def test_a_card_shows_lineage_and_curves_where_there_are_some() -> None:
    text = card("model", lineage="| a |\n", curves=["training_loss.png"])
    assert "## Lineage\n\n| a |\n" in text
    assert "![training_loss.png](training_loss.png)\n" in text
    assert "## Lineage" not in card("model")
    assert "## Curves" not in card("model")


def test_cards_say_what_was_trained() -> None:
    assert "A LoRA adapter for supervised fine-tuning" in card("adapter")
    assert "The base model with a LoRA adapter merged in" in card("model")
    assert "A model with all weights fine-tuned" in card("model", {"tuning": {"method": "Full"}})
