"""Curves for people's own tools, on the cluster: in storage, and to services that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cluster
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("tiny_inputs")]

NOWHERE = "http://mlflow.nowhere.svc:5000"


def steps_in_tensorboard(namespace: str, run: str, folder: Path) -> list[int]:
    """Returns the steps of the training loss, as TensorBoard reads them."""
    client = cluster.s3_client()
    for key in cluster.keys_of("runs", f"{namespace}/{run}/tensorboard/"):
        client.download_file("runs", key, str(folder / key.rpartition("/")[2]))
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [event.step for event in reader.Scalars("train/loss")]


def test_a_tracker_that_is_not_there_stops_nothing(namespace: str, tmp_path: Path) -> None:
    tracking = {"mlflow": {"trackingUri": NOWHERE, "experiment": "e2e"}}
    changes: dict[str, Any] = {"tracking": tracking, "training": {"maxSteps": 6}}
    cluster.apply(cluster.run_manifest(namespace, "lonely", changes))
    status = cluster.wait_finished(namespace, "lonely")
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    results = cluster.read_json("runs", f"{namespace}/lonely/results/all_results.json")
    assert results["warnings"][0].startswith("mlflow was not told of all of this run")
    assert "mlflow cannot be told of this run, training goes on" in cluster.read_logs(
        namespace, "lonely"
    )
    assert status["artifacts"]["tensorboard"] == f"s3://runs/{namespace}/lonely/tensorboard/"
    assert steps_in_tensorboard(namespace, "lonely", tmp_path) == list(range(1, 7))


def test_a_secret_that_is_missing_holds_the_pods_back_and_heals(namespace: str) -> None:
    changes = {
        "tracking": {"wandb": {"project": "e2e", "secretName": "wandb"}},
        "training": {"maxSteps": 4},
        # Nothing is sent, so no server is needed.
        "workers": {"env": [{"name": "WANDB_MODE", "value": "offline"}]},
    }
    cluster.apply(cluster.run_manifest(namespace, "keyless", changes))

    def held_back() -> bool:
        said = cluster.condition(cluster.status_of(namespace, "keyless"), "WorkersReady")
        return said.get("reason") == "CreateContainerConfigError" and "wandb" in said["message"]

    cluster.wait_until(held_back, "a word about the Secret")
    secret = cluster.secret(namespace, "wandb")
    cluster.apply({**secret, "stringData": {"WANDB_API_KEY": "0" * 40}})
    assert cluster.wait_finished(namespace, "keyless")["phase"] == "Succeeded"
    results = cluster.read_json("runs", f"{namespace}/keyless/results/all_results.json")
    assert "warnings" not in results


def test_the_column_model_is_never_empty(namespace: str) -> None:
    cluster.s3_client().put_object(
        Bucket="data", Key=f"{namespace}/words.txt", Body=b"some words to learn from\n" * 400
    )
    spec = {
        "stage": "Tokenizer",
        "datasets": [{"uri": f"s3://data/{namespace}/words.txt", "format": "Text"}],
        "tokenizerTraining": {"vocabSize": 300},
        **dict.fromkeys(("model", "tuning", "training", "checkpoint")),
    }
    cluster.apply(cluster.run_manifest(namespace, "words", spec))
    architecture = {
        "family": "llama",
        "hiddenSize": 48,
        "numHiddenLayers": 2,
        "numAttentionHeads": 4,
        "intermediateSize": 96,
        "maxPositionEmbeddings": 256,
    }
    spec |= {
        "stage": "Pretrain",
        "architecture": architecture,
        "tokenizer": {"uri": "s3://models/tiny/"},
        "tokenizerTraining": None,
        "training": {"maxSteps": 4, "maxLength": 64},
    }
    cluster.apply(cluster.run_manifest(namespace, "fresh", spec))
    for name in ("words", "fresh"):
        assert cluster.wait_finished(namespace, name)["phase"] == "Succeeded"
    assert cluster.status_of(namespace, "words")["model"] == "new BPE 300"
    shown = cluster.status_of(namespace, "fresh")["model"]
    assert shown.startswith("new llama ")
    assert shown.endswith("K")


def test_each_step_stands_once_after_a_killed_pod(namespace: str, tmp_path: Path) -> None:
    changes = {"training": {"maxSteps": 200}, "checkpoint": {"everySteps": 10}}
    cluster.apply(cluster.run_manifest(namespace, "killed", changes))
    cluster.wait_for_checkpoint(namespace, "killed")
    cluster.kubectl(
        "delete", "pod", "-n", namespace, "-l", "llmtrain.dev/run=killed",
        "--force", "--grace-period=0",
    )  # fmt: skip
    status = cluster.wait_finished(namespace, "killed")
    assert (status["phase"], status["attempt"] > 1) == ("Succeeded", True)
    assert steps_in_tensorboard(namespace, "killed", tmp_path) == list(range(1, 201))
