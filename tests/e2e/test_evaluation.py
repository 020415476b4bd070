"""What held-out rows measure, and what is kept of the best model, on the cluster."""

from __future__ import annotations

import json
from typing import Any

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("tiny_inputs")]


def curve(namespace: str, name: str, number: str) -> dict[int, float]:
    """Returns a curve of a finished run, by step."""
    key = f"{namespace}/{name}/results/trainer_log.jsonl"
    text = cluster.s3_client().get_object(Bucket="runs", Key=key)["Body"].read().decode()
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    return {line["current_steps"]: line[number] for line in lines if number in line}


def test_two_nodes_train_and_measure_what_one_does(namespace: str) -> None:
    """The data set's size does not divide the batch, and its last rows are not repeated."""
    changes = {
        "tuning": {"lora": {"dropout": 0}},
        "training": {"maxSteps": None, "epochs": 2, "globalBatchSize": 8},
        "datasets": [{"uri": "s3://data/tiny/train.jsonl", "format": "Alpaca", "maxSamples": 45}],
        "evaluation": {"fraction": 0.2, "everySteps": 3, "batchSize": 2, "atStart": True},
    }
    cluster.apply(cluster.run_manifest(namespace, "one", changes))
    cluster.apply(cluster.run_manifest(namespace, "two", {**changes, "workers": {"nodes": 2}}))
    for name in ("one", "two"):
        assert cluster.wait_finished(namespace, name)["phase"] == "Succeeded"
    for number in ("loss", "eval_loss", "eval_token_accuracy"):
        one, two = (curve(namespace, name, number) for name in ("one", "two"))
        assert one.keys() == two.keys()
        assert list(two.values()) == pytest.approx(list(one.values()), abs=1e-5), number
    assert 0 in curve(namespace, "one", "eval_loss")


def test_the_best_checkpoint_stays_and_is_the_result(namespace: str) -> None:
    changes = {
        "training": {"maxSteps": 60, "learningRate": 0.05, "lrSchedulerType": "constant"},
        "datasets": [{"uri": "s3://data/tiny/train.jsonl", "format": "Alpaca", "maxSamples": 40}],
        "evaluation": {
            "fraction": 0.3,
            "everySteps": 2,
            "metricForBestModel": "loss",
            "earlyStoppingPatience": 4,
            "loadBestModelAtEnd": True,
        },
        "checkpoint": {"everySteps": 2, "keep": 1},
    }
    cluster.apply(cluster.run_manifest(namespace, "best", changes))
    status = cluster.wait_finished(namespace, "best")
    assert status["phase"] == "Succeeded"
    losses = curve(namespace, "best", "eval_loss")
    best = min(losses, key=lambda step: losses[step])
    last = max(losses)
    assert status["progress"]["bestStep"] == best
    results = cluster.read_json("runs", f"{namespace}/best/results/all_results.json")
    assert (results["best_step"], results["model_step"]) == (best, best)
    assert last == best + 8
    assert results["stopped_early"]
    kept = {key.split("/")[3] for key in cluster.keys_of("runs", f"{namespace}/best/checkpoints/")}
    assert kept == {f"{best}-a1r0", f"{last}-a1r0"}
