"""A run from `kubectl apply` to the model in S3, on two nodes, under Pod Security `restricted`."""

from __future__ import annotations

import json
import re

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("tiny_inputs")]


def test_two_nodes_train_one_model(namespace: str) -> None:
    cluster.apply(cluster.run_manifest(namespace, "pair", {"workers": {"nodes": 2}}))
    pods = cluster.wait_until(
        lambda: (
            [
                pod
                for pod in cluster.list_of("pods", namespace)
                if pod["spec"].get("nodeName") and pod["status"]["phase"] == "Running"
            ][1:]
            and cluster.list_of("pods", namespace)
        ),
        "two pods running",
    )
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    status = cluster.wait_finished(namespace, "pair")

    assert (status["phase"], status["attempt"]) == ("Succeeded", 1), status.get("attempts")
    assert cluster.condition(status, "Succeeded")["status"] == "True"
    assert status["progress"]["summary"] == "20/20"
    assert status["latestCheckpoint"] == "20-a1r0"
    assert [c["name"] for c in status["checkpoints"]] == ["20-a1r0", "15-a1r0"]

    logs = cluster.read_logs(namespace, "pair")
    hashes = re.findall(r"weights sha256 ([0-9a-f]{64}) on rank (\d)", logs)
    assert {rank for _, rank in hashes} == {"0", "1"}
    assert len({digest for digest, _ in hashes}) == 1, "the ranks ended with different weights"

    keys = cluster.keys_of("runs", f"{namespace}/pair/")
    for part in ("attempts/1/logs/node-0.", "attempts/1/logs/node-1.", "adapter/adapter_model"):
        assert any(part in key for key in keys), part
    for name in ("owner.json", "run.json", "inputs.json", "provenance.json", "model/manifest.json"):
        assert f"{namespace}/pair/{name}" in keys
    assert re.search(r"8\d distinct samples, 0 of them seen by two processes", logs)
    results = cluster.read_json("runs", f"{namespace}/pair/results/all_results.json")
    assert results["total_steps"] == 20


def test_columns_tell_the_state_of_a_run(namespace: str) -> None:
    cluster.apply(cluster.run_manifest(namespace, "wide", {"training": {"maxSteps": 6}}))
    cluster.wait_finished(namespace, "wide")
    table = cluster.kubectl("get", "ltr", "-n", namespace, "-o", "wide").stdout.splitlines()
    assert table[0].split()[:6] == ["NAME", "STAGE", "PHASE", "STEP", "LOSS", "ETA"]
    wide = {"AGE", "EPOCH", "TOKENS/S", "MFU", "NODES", "ATTEMPT", "CHECKPOINT", "MODEL"}
    assert set(table[0].split()[6:]) == wide
    name, stage, phase, step, loss = table[1].split()[:5]
    assert (name, stage, phase, step) == ("wide", "SFT", "Succeeded", "6/6")
    assert 0 < float(loss) < 20
    told = cluster.kubectl("describe", "ltr", "wide", "-n", namespace).stdout
    for event in ("AttemptStarted", "Training", "Succeeded"):
        assert event in told


def test_full_tuning_writes_a_model_that_transformers_loads(namespace: str) -> None:
    changes = {
        "tuning": {"method": "Full", "lora": None},
        "training": {"maxSteps": 4},
        "evaluation": {"fraction": 0.1, "everySteps": 2},
    }
    cluster.apply(cluster.run_manifest(namespace, "full", changes))
    status = cluster.wait_finished(namespace, "full")
    assert status["phase"] == "Succeeded"
    assert status["artifacts"]["model"] == f"s3://runs/{namespace}/full/model/"
    assert float(status["progress"]["evalLoss"]) > 0
    keys = cluster.keys_of("runs", f"{namespace}/full/model/")
    names = {key.rsplit("/", 1)[1] for key in keys}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    manifest = cluster.read_json("runs", f"{namespace}/full/model/manifest.json")
    assert json.dumps(manifest).count("sha256") >= 3


def test_progress_is_never_far_behind(namespace: str) -> None:
    """The status is at most 15 s plus one logging interval behind the trainer."""
    # More steps than any machine trains while this test looks; the namespace ends with it.
    changes = {"training": {"maxSteps": 100_000}, "checkpoint": {"everySteps": 500}}
    cluster.apply(cluster.run_manifest(namespace, "steady", changes))
    cluster.wait_until(
        lambda: (cluster.status_of(namespace, "steady").get("progress") or {}).get("step", 0) > 5,
        "training",
    )
    seen: list[int] = []
    for _ in range(3):
        before = cluster.status_of(namespace, "steady")["progress"]["step"]
        cluster.wait_until(
            lambda before=before: (
                cluster.status_of(namespace, "steady")["progress"]["step"]  # type: ignore[misc]
                > before
            ),
            "a newer step",
            seconds=16,
        )
        seen.append(before)
    assert seen == sorted(set(seen))
