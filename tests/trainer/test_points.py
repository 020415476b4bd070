"""From lines of the training log to points of curves."""

from __future__ import annotations

import json

import jobs
import pytest

from llmtrain_api.runfile import RunFile
from llmtrain_trainer.tracking.identity import identity, parameters
from llmtrain_trainer.tracking.points import curves_of, read_points


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            {"loss": 1.5, "lr": 1e-3, "grad_norm": 2, "throughput": 9.0},
            {
                "train/loss": 1.5,
                "train/learning_rate": 1e-3,
                "train/grad_norm": 2.0,
                "train/tokens_per_second": 9.0,
            },
            id="a line of training, in transformers' names",
        ),
        pytest.param(
            {"eval_loss": 1.5, "epoch": 0.5, "eval_rewards/margins": 0.1},
            {"eval/loss": 1.5, "eval/rewards/margins": 0.1},
            id="of an evaluation, what was held out alone",
        ),
        pytest.param(
            {"percentage": 5.0, "elapsed_time": "0:01:00", "remaining_time": "0:02:00"},
            {},
            id="how far it is makes no curve",
        ),
        pytest.param({"loss": float("nan"), "grad_norm": 1.0}, {"train/grad_norm": 1.0}, id="NaN"),
    ],
)
def test_curves(line: dict[str, float], expected: dict[str, float]) -> None:
    assert curves_of({"current_steps": 5, "total_steps": 10, **line}) == expected


def test_points_have_the_step_and_the_time_of_their_line() -> None:
    lines = [json.dumps({"current_steps": step, "total_steps": 9, "loss": 1.0}) for step in (3, 4)]
    points = read_points([*lines, "", json.dumps({"current_steps": 5, "total_steps": 9})], 7.0)
    assert [(point.step, point.seconds) for point in points] == [(3, 7.0), (4, 7.0)]


def run_file(**fields: str) -> RunFile:
    return RunFile.model_validate({"name": "small", "spec": jobs.small_spec(), **fields})


def test_a_run_is_known_by_its_uid_or_by_its_output_and_spec() -> None:
    assert identity(run_file(uid="1-2")) == "1-2"
    other = RunFile.model_validate(
        {"name": "small", "spec": jobs.small_spec({"output.uri": "s3://runs/other/"})}
    )
    assert identity(run_file()) == identity(run_file()) != identity(other)
    assert len(identity(run_file())) == 32


def test_parameters_are_flat() -> None:
    found = parameters(run_file())
    assert found["training.learningRate"] == "0.005"
    assert found["datasets.0.format"] == "Alpaca"
