"""Which model is best, what is kept of it, and when training ends early."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny

from llmtrain_trainer.best import Best, best


def history(**values: list[float]) -> list[dict[str, float]]:
    """Returns logs of evaluations at steps 0, 10, 20 and so on."""
    (name, curve), *_ = values.items()
    lines: list[dict[str, float]] = [{"loss": 1.0, "step": 5}]
    return lines + [{name: value, "step": 10 * number} for number, value in enumerate(curve)]


@pytest.mark.parametrize(
    ("logs", "metric", "expected"),
    [
        pytest.param(history(eval_loss=[9]), "loss", None, id="none before the first step"),
        pytest.param(
            history(eval_loss=[1, 3, 2, 4, 5]), "loss", Best(20, 2, 2), id="the lowest loss"
        ),
        pytest.param(
            history(eval_loss=[9, 2, 2, 2]), "loss", Best(10, 2, 2), id="the first of equals"
        ),
        pytest.param(
            history(eval_accuracy=[9, 0.1, 0.7, 0.4]),
            "accuracy",
            Best(20, 0.7, 1),
            id="the highest accuracy",
        ),
        pytest.param(
            [*history(eval_loss=[9, 2, 1]), {"eval_loss": 1.0, "step": 20}],
            "loss",
            Best(20, 1, 0),
            id="a step that was measured twice counts once",
        ),
    ],
)
def test_best(logs: list[dict[str, float]], metric: str, expected: Best | None) -> None:
    assert best(logs, metric) == expected


WORSE = {
    "training.maxSteps": 40,
    "training.learningRate": 0.05,  # Learns the rows by heart, and the held-out ones worse.
    "training.lrSchedulerType": "constant",
    "evaluation": {
        "fraction": 0.3,
        "everySteps": 2,
        "metricForBestModel": "loss",
        "earlyStoppingPatience": 3,
        "loadBestModelAtEnd": True,
    },
    "checkpoint": {"everySteps": 1000},
}


@pytest.fixture(scope="module")
def ended(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run that ended early."""
    from llmtrain_trainer import worker

    folder = tmp_path_factory.mktemp("ended")
    jobs.write_job(folder, tiny_model, WORSE, data=[tiny.alpaca_rows(30)])
    assert worker.main([str(folder)]) == 0
    return folder


def steps_saved(folder: Path) -> list[int]:
    return sorted(int(each.name.split("-")[1]) for each in (folder / "out").glob("checkpoint-*"))


@pytest.mark.torch
def test_training_ends_when_no_model_is_better_for_long_enough(ended: Path) -> None:
    curve = jobs.training_log(ended, "eval_loss")
    found = min(curve, key=lambda step: curve[step])
    assert max(curve) == found + 6 < 40
    numbers = jobs.results(ended)
    assert numbers["best_metric"] == "eval_loss"
    assert numbers["best_step"] == numbers["model_step"] == found
    assert numbers["best_value"] == numbers["eval_loss"] == curve[found]
    assert numbers["stopped_early"]
    assert jobs.training_log(ended, "best_step")[max(curve)] == found


@pytest.mark.torch
def test_each_model_that_is_better_has_a_checkpoint(ended: Path) -> None:
    curve = jobs.training_log(ended, "eval_loss")
    better = [step for step in curve if curve[step] == min(curve[s] for s in curve if s <= step)]
    assert steps_saved(ended) == sorted({*better, max(curve)})


@pytest.mark.torch
def test_the_result_is_the_best_model(ended: Path) -> None:
    from safetensors.torch import load_file

    found = jobs.results(ended)["best_step"]
    name = "adapter_model.safetensors"
    final = load_file(ended / "final" / "adapter" / name)
    saved = load_file(ended / "out" / f"checkpoint-{found}" / name)
    last = load_file(ended / "out" / f"checkpoint-{found + 6}" / name)
    assert all(final[key].equal(saved[key]) for key in saved)
    assert not all(final[key].equal(last[key]) for key in last)


@pytest.mark.torch
@pytest.mark.parametrize("later", [pytest.param(2, id="before"), pytest.param(6, id="at")])
def test_a_restart_ends_as_early_and_with_the_same_model(
    later: int, ended: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from llmtrain_trainer import worker

    numbers = jobs.results(ended)
    found = numbers["best_step"]
    changes: dict[str, Any] = {**WORSE, "checkpoint": {"everySteps": 2}}
    folder = tmp_path / "again"
    source = ended / "out" / f"checkpoint-{found + 6}"
    if later != 6:  # A checkpoint that the run did not save, of the same course.
        whole = jobs.write_job(tmp_path / "whole", tiny_model, changes, data=[tiny.alpaca_rows(30)])
        assert worker.main([str(whole)]) == 0
        source = whole / "out" / f"checkpoint-{found + later}"
    jobs.write_job(folder, tiny_model, changes, data=[tiny.alpaca_rows(30)], resume_from=source)
    job = json.loads((folder / "job.json").read_text())
    best_from = tmp_path / f"checkpoint-{found}"
    shutil.copytree(ended / "out" / best_from.name, best_from)
    (folder / "job.json").write_text(json.dumps({**job, "bestFrom": str(best_from)}))
    assert worker.main([str(folder)]) == 0
    again = jobs.results(folder)
    assert (again["best_step"], again["model_step"]) == (found, found)
    assert again["weights_sha256"] == numbers["weights_sha256"]
    assert again["total_steps"] == numbers["total_steps"]


@pytest.mark.torch
def test_without_its_weights_the_last_model_is_the_result(
    ended: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from llmtrain_trainer import worker

    found = jobs.results(ended)["best_step"]
    source = ended / "out" / f"checkpoint-{found + 6}"
    jobs.write_job(tmp_path, tiny_model, WORSE, data=[tiny.alpaca_rows(30)], resume_from=source)
    assert worker.main([str(tmp_path)]) == 0
    assert jobs.results(tmp_path)["model_step"] == found + 6
