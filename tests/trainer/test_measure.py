"""What held-out rows measure does not depend on how they are batched."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def part(values: dict[str, float], **counts: float) -> Any:
    from llmtrain_trainer.stages.measure import Part

    return Part(values, counts)


SHORT = ({"loss": 1.0, "mean_token_accuracy": 1.0}, {"loss": 2, "tokens": 2, "rows": 1})
LONG = ({"loss": 4.0, "mean_token_accuracy": 0.5}, {"loss": 6, "tokens": 6, "rows": 1})
FILLER = ({"loss": 9.0, "mean_token_accuracy": 0.0}, {"loss": 0, "tokens": 0, "rows": 0})


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([SHORT, LONG], id="in order"),
        pytest.param([LONG, FILLER, SHORT], id="in another order, with a batch that only fills"),
    ],
)
def test_each_token_weighs_the_same(order: list[Any]) -> None:
    from llmtrain_trainer.stages.measure import merge

    merged = merge([part(values, **counts) for values, counts in order])
    loss = (1 * 2 + 4 * 6) / 8
    assert merged == {
        "loss": loss,
        "mean_token_accuracy": (1 * 2 + 0.5 * 6) / 8,
        "perplexity": math.exp(loss),
    }


def test_each_pair_weighs_the_same_and_extremes_stay() -> None:
    from llmtrain_trainer.stages.measure import merge

    two = {"loss": 0.5, "accuracy": 1.0, "min_reward": -1.0, "max_reward": 2.0, "num_tokens": 7.0}
    one = {"loss": 2.0, "accuracy": 0.0, "min_reward": -3.0, "max_reward": 1.0, "num_tokens": 7.0}
    merged = merge([part(two, loss=2, rows=2), part(one, loss=1, rows=1)])
    assert merged == {"loss": 1.0, "accuracy": 2 / 3, "min_reward": -3.0, "max_reward": 2.0}


def test_single_answers_weigh_by_kind() -> None:
    from llmtrain_trainer.stages.measure import merge

    mixed = part(
        {"loss": 1.0, "rewards/chosen": 1.0, "rewards/rejected": -2.0, "rewards/margins": 3.0},
        loss=3,
        rows=3,
        chosen=1,
        rejected=2,
    )
    good = part({"loss": 1.0, "rewards/chosen": 4.0}, loss=2, rows=2, chosen=2, rejected=0)
    merged = merge([mixed, good])
    assert merged["rewards/chosen"] == 3.0
    assert merged["rewards/rejected"] == -2.0
    assert merged["rewards/margins"] == 5.0


def test_a_perplexity_that_is_too_large_is_infinite() -> None:
    from llmtrain_trainer.stages.measure import logged, merge

    merged = merge([part({"loss": 1e4}, loss=1, tokens=1, rows=1)])
    assert merged["perplexity"] == math.inf
    assert logged({"eval_perplexity": math.inf, "eval_mean_token_accuracy": 0.5}) == {
        "eval_perplexity": "Infinity",
        "eval_token_accuracy": 0.5,
    }


def test_what_a_batch_is_a_mean_over() -> None:
    import torch

    from llmtrain_trainer.stages.measure import count

    labels = torch.tensor([[-100, 5, 6], [7, -100, 8]])
    assert count({"labels": labels}, 2) == {"loss": 3, "tokens": 3, "rows": 2}
    assert count({"labels": labels, "shift_labels": labels}, 2)["tokens"] == 4
    assert count({"input_ids": labels}, 1) == {"loss": 1, "rows": 1}
    mask = torch.tensor([[0, 1, 1], [0, 0, 1]])
    pairs = {"loss": 1, "rows": 1, "chosen_tokens": 2, "rejected_tokens": 1, "tokens": 3}
    assert count({"completion_mask": mask}, 1) == pairs
    answers = count({"completion_mask": mask, "label": [False, True]}, 2)
    assert answers["chosen"] == answers["rejected"] == answers["chosen_tokens"] == 1
    assert answers["rejected_tokens"] == 2
    assert count({"completion_mask": mask}, 0) == {"loss": 0, "rows": 0}


def test_a_process_measures_alone_for_the_time_being() -> None:
    from llmtrain_trainer.stages.measure import alone

    class Accelerator:
        def gather(self, value: int) -> int:
            return value + 1

        gather_for_metrics = gather

    accelerator: Any = Accelerator()
    args = SimpleNamespace(average_tokens_across_devices=True)
    with alone(accelerator, args):
        assert accelerator.gather(3) == accelerator.gather_for_metrics(3) == 3
        assert not args.average_tokens_across_devices
    assert accelerator.gather(3) == 4
    assert args.average_tokens_across_devices
