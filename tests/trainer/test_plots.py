"""The curves as images."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llmtrain_trainer.stages.plots import Panel, smooth, write_all

LOSS = [
    {"loss": 4.0, "step": 10, "learning_rate": 0.1, "grad_norm": 2.0},
    {"loss": 2.0, "step": 20, "learning_rate": 0.05, "grad_norm": math.nan},
]
HELD_OUT = [*LOSS, {"eval_loss": 1.0, "step": 20}, {"eval_loss": 0.9, "step": 30}]
OF_DPO = [
    {"loss": 0.7, "step": 1, "rewards/chosen": 0.1, "rewards/margins": 0.2},
    {"loss": 0.6, "step": 2, "rewards/accuracies": 0.8},
    {"eval_loss": 0.6, "eval_rewards/accuracies": 0.75, "step": 2},
]
OF_KTO = [{"loss": 0.5, "step": 1, "rewards/chosen": 0.1}]
OF_TRAINING = ["training_loss.png", "training_learning_rate.png", "training_grad_norm.png"]


@pytest.mark.torch  # For matplotlib, which takes seconds to import too.
@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param(LOSS, OF_TRAINING, id="training alone"),
        pytest.param(HELD_OUT, [*OF_TRAINING, "training_eval_loss.png"], id="with an evaluation"),
        pytest.param(
            OF_DPO,
            ["training_loss.png", "training_eval_loss.png", "training_rewards.png"],
            id="DPO",
        ),
        pytest.param(OF_KTO, ["training_loss.png", "training_rewards.png"], id="KTO"),
        pytest.param(
            [{"loss": 1.0, "step": 1, "mean_token_accuracy": 0.5}],
            ["training_loss.png", "training_token_accuracy.png"],
            id="the accuracy of tokens",
        ),
        pytest.param(LOSS[:1], OF_TRAINING, id="one point"),
        pytest.param([], ["training_loss.png"], id="no point at all"),
    ],
)
def test_every_curve_that_was_logged_is_drawn(
    history: list[dict[str, float]], expected: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "plots"
    assert sorted(write_all(history, "run", folder)) == sorted(expected)
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_panel_keeps_the_curves_that_there_are() -> None:
    panel = Panel("share", {"rewards/accuracies": "blue", "accuracy": "red"})
    assert panel.logged(OF_DPO) == Panel("share", {"rewards/accuracies": "blue"})
    assert panel.logged(OF_KTO).curves == {}


def test_smoothing_keeps_the_length_and_the_start_and_lessens_the_noise() -> None:
    noisy = [float(number % 2) for number in range(100)]
    smoothed = smooth(noisy)
    assert len(smoothed) == 100
    assert smoothed[0] == noisy[0]
    assert max(smoothed[50:]) - min(smoothed[50:]) < 0.2
    assert smooth([]) == []
    weight = 1.8 * (1 / (1 + math.exp(-0.15)) - 0.5)
    assert smooth([1.0, 0.0, 0.0]) == pytest.approx([1.0, weight, weight**2])
