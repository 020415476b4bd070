"""A model, an adapter and a checkpoint of a run are measured on the cluster."""

from __future__ import annotations

import json
from typing import Any

import cluster
import pytest
import tiny

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("tiny_inputs")]


def evaluation(namespace: str, name: str, model: dict[str, str], nodes: int = 1) -> dict[str, Any]:
    """Returns a run that measures a model on rows of this namespace."""
    changes = {
        "stage": "Evaluate",
        "model": model,
        "datasets": [{"uri": f"s3://data/{namespace}/rows.jsonl", "format": "Alpaca"}],
        "tuning": None,
        "training": None,
        "evaluate": {"maxLength": 128, "predict": {"maxNewTokens": 8}},
        "workers": {"nodes": nodes},
    }
    return cluster.run_manifest(namespace, name, changes)


def results(namespace: str, name: str) -> Any:
    return cluster.read_json("runs", f"{namespace}/{name}/results/all_results.json")


def test_an_adapter_and_its_checkpoint_are_measured_alike_on_one_node_and_two(
    namespace: str,
) -> None:
    rows = tiny.jsonl(list(tiny.alpaca_rows(21, seed=3)))
    cluster.s3_client().put_object(Bucket="data", Key=f"{namespace}/rows.jsonl", Body=rows)
    cluster.apply(cluster.run_manifest(namespace, "trained"))
    trained = cluster.wait_finished(namespace, "trained")
    base = "s3://models/tiny/"
    at = f"s3://runs/{namespace}/trained"
    checkpoint = f"{at}/checkpoints/{trained['latestCheckpoint']}/"
    cluster.apply(evaluation(namespace, "base", {"uri": base}))
    cluster.apply(evaluation(namespace, "adapter", {"uri": base, "adapterUri": f"{at}/adapter/"}))
    measured = {"uri": base, "adapterUri": checkpoint}
    cluster.apply(evaluation(namespace, "checkpoint", measured, nodes=2))
    for name in ("base", "adapter", "checkpoint"):
        status = cluster.wait_finished(namespace, name)
        assert status["phase"] == "Succeeded", status.get("attempts")
        done, _, total = status["progress"]["summary"].partition("/")
        assert done == total
        assert status["artifacts"]["results"].endswith("/results/all_results.json")
        assert "model" not in status["artifacts"]
    adapter, whole = results(namespace, "adapter"), results(namespace, "checkpoint")
    for key in ("eval_loss", "eval_samples", "eval_tokens", "predict_rouge-1", "predict_bleu-4"):
        assert adapter[key] == whole[key], key
    assert adapter["eval_samples"] == 21
    assert adapter["eval_loss"] < results(namespace, "base")["eval_loss"]
    key = f"{namespace}/checkpoint/results/generated_predictions.jsonl"
    body = cluster.s3_client().get_object(Bucket="runs", Key=key)["Body"].read().decode()
    assert [json.loads(line)["label"] for line in body.splitlines()] == [
        row["output"] for row in tiny.alpaca_rows(21, seed=3)
    ]


def test_an_evaluation_that_lost_its_pod_begins_anew(namespace: str) -> None:
    rows = tiny.jsonl(list(tiny.alpaca_rows(3000)))
    cluster.s3_client().put_object(Bucket="data", Key=f"{namespace}/rows.jsonl", Body=rows)
    cluster.apply(evaluation(namespace, "again", {"uri": "s3://models/tiny/"}))
    cluster.wait_until(
        lambda: cluster.status_of(namespace, "again").get("progress", {}).get("step"), "a step"
    )
    cluster.kubectl(
        "delete", "pod", "-n", namespace, "-l", "llmtrain.dev/run=again", "--grace-period=0",
        "--force",
    )  # fmt: skip
    status = cluster.wait_finished(namespace, "again", seconds=600)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2), status.get("attempts")
    assert results(namespace, "again")["eval_samples"] == 3000
