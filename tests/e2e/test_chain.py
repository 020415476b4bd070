"""Runs that start from other runs, on the cluster: the whole chain, and what breaks it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cluster
import pytest
import tiny
import yaml

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200), pytest.mark.usefixtures("tiny_inputs")]
CHAIN = Path(__file__).parents[2] / "examples" / "chain.yaml"
ROWS = {
    "corpus": [
        {"text": f"{row['instruction']} {row['output']}"} for row in tiny.alpaca_rows(200, seed=1)
    ],
    "questions": tiny.alpaca_rows(40),
    "pairs": tiny.preference_rows(40),
}


def made_small(run: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Returns a run of the example for four steps; what it starts from stays as it is written."""
    run["metadata"]["namespace"] = namespace
    spec, name = run["spec"], run["metadata"]["name"]
    for dataset in spec["datasets"]:
        kind = Path(dataset["uri"]).stem
        key = f"{namespace}/{kind}.jsonl"
        cluster.s3_client().put_object(Bucket="data", Key=key, Body=tiny.jsonl(ROWS[kind]))
        dataset["uri"] = f"s3://data/{key}"
    if training := spec.get("training"):
        for end in ("epochs", "maxTokens"):
            training.pop(end, None)
        training["maxSteps"] = 4
    spec["output"]["uri"] = f"s3://runs/{namespace}/{name}/"
    return run


def reason(namespace: str, name: str, type_: str) -> str:
    """Returns status and reason of a condition, such as `False WaitingForRun`."""
    said = cluster.condition(cluster.status_of(namespace, name), type_)
    return f"{said.get('status')} {said.get('reason')}"


def full_run(namespace: str, name: str, source: dict[str, Any], steps: int = 4) -> dict[str, Any]:
    """Returns a small run of all weights that starts from `source`."""
    changes = {"tuning": {"method": "Full", "lora": None}, "training": {"maxSteps": steps}}
    run = cluster.run_manifest(namespace, name, changes)
    run["spec"]["model"] = source
    return run


def test_the_example_in_reverse_order_trains_to_the_end(namespace: str) -> None:
    documents = list(yaml.safe_load_all(CHAIN.read_text(encoding="utf-8")))
    names = [document["metadata"]["name"] for document in documents]
    cluster.apply([made_small(document, namespace) for document in documents])
    cluster.wait_until(
        lambda: reason(namespace, names[0], "WorkersReady") == "False WaitingForRun", "it waits"
    )
    assert cluster.list_of("jobs", namespace, f"llmtrain.dev/run={names[0]}") == []
    for name in reversed(names):
        status = cluster.wait_finished(namespace, name)
        assert status["phase"] == "Succeeded", status["conditions"]

    for name, before in pairwise(names):
        (parent,) = cluster.status_of(namespace, name)["resolved"]["parents"]
        earlier = cluster.get("llmtrainrun", namespace, before)
        assert parent["name"] == before
        assert parent["uid"] == earlier["metadata"]["uid"]
        assert parent["specHash"] == earlier["status"]["resolved"]["specHash"]
        assert parent["uri"] == f"s3://runs/{namespace}/{before}/model/"
        origin = cluster.read_json("runs", f"{namespace}/{name}/provenance.json")
        assert origin["parents"] == [parent]
        written = cluster.get("llmtrainrun", namespace, name)["spec"]
        source = written.get("model") or written["tokenizer"]
        assert "uri" not in source, "the operator never writes what a user owns"


def test_applying_the_chain_again_changes_nothing(namespace: str) -> None:
    first = full_run(namespace, "first", {"uri": "s3://models/tiny/"})
    second = full_run(namespace, "second", {"fromRun": {"name": "first"}})
    cluster.apply([second, first])
    cluster.wait_finished(namespace, "second")
    before = cluster.list_of("llmtrainruns", namespace)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [second, first]})
    assert cluster.kubectl("diff", "-f", "-", stdin=text, check=False).returncode == 0
    cluster.apply([second, first])
    assert cluster.list_of("llmtrainruns", namespace) == before


def test_a_checkpoint_of_another_run_is_a_model(namespace: str) -> None:
    first = full_run(namespace, "first", {"uri": "s3://models/tiny/"}, steps=10)
    source = {"fromRun": {"name": "first", "checkpoint": 5}}
    cluster.apply([full_run(namespace, "second", source), first])
    status = cluster.wait_finished(namespace, "second")
    assert status["phase"] == "Succeeded", status["conditions"]
    (parent,) = status["resolved"]["parents"]
    assert parent["uri"] == f"s3://runs/{namespace}/first/checkpoints/5-a1r0/"


def test_a_deleted_predecessor_is_named_and_may_come_again(namespace: str) -> None:
    first = full_run(namespace, "first", {"uri": "s3://models/tiny/"}, steps=6)
    cluster.apply([first, full_run(namespace, "second", {"fromRun": {"name": "first"}})])
    cluster.wait_until(
        lambda: reason(namespace, "second", "WorkersReady") == "False WaitingForRun", "it waits"
    )
    cluster.kubectl("delete", "llmtrainrun", "first", "-n", namespace)
    cluster.wait_until(
        lambda: reason(namespace, "second", "Accepted") == "False RunNotFound",
        "it says that the run is gone",
        seconds=15,
    )
    cluster.apply(first)
    assert cluster.wait_finished(namespace, "second")["phase"] == "Succeeded"


def test_a_failed_predecessor_stalls_the_run_until_it_is_tried_again(namespace: str) -> None:
    missing = f"s3://data/{namespace}/late.jsonl"
    first = full_run(namespace, "first", {"uri": "s3://models/tiny/"})
    first["spec"]["datasets"] = [{"uri": missing, "format": "Alpaca"}]
    cluster.apply([first, full_run(namespace, "second", {"fromRun": {"name": "first"}})])
    assert cluster.wait_finished(namespace, "first")["phase"] == "Failed"
    cluster.wait_until(
        lambda: reason(namespace, "second", "Stalled") == "True PredecessorFailed",
        "it says that the run failed",
        seconds=15,
    )
    rows = tiny.jsonl(tiny.alpaca_rows(40))
    cluster.s3_client().put_object(Bucket="data", Key=f"{namespace}/late.jsonl", Body=rows)
    first["spec"]["retry"] = 1
    cluster.apply(first)
    assert cluster.wait_finished(namespace, "second")["phase"] == "Succeeded"


def test_runs_that_wait_for_each_other_are_refused(namespace: str) -> None:
    cluster.apply(
        [
            full_run(namespace, "one", {"fromRun": {"name": "two"}}),
            full_run(namespace, "two", {"fromRun": {"name": "one"}}),
        ]
    )
    for name in ("one", "two"):
        status = cluster.wait_finished(namespace, name)
        message = cluster.condition(status, "Accepted")["message"]
        assert "wait for each other" in message
