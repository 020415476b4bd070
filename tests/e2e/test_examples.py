"""Each file in `examples/` is applied, first as it is, then on the tiny model to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cluster
import pytest
import tiny
import yaml

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("tiny_inputs")]
FILES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
RUNS = [path for path in FILES if path.name != "chain.yaml"]  # It trains in test_chain.py.


def _rows(format_: str) -> bytes:
    """Returns rows in one of the formats that a data set may have."""
    alpaca = tiny.alpaca_rows(40)
    if format_ == "Alpaca":
        return tiny.jsonl(list(alpaca))
    if format_ == "ShareGPT":
        turns = [(("customer", row["instruction"]), ("agent", row["output"])) for row in alpaca]
        return tiny.jsonl(
            [{"dialogue": [{"from": who, "value": said} for who, said in row]} for row in turns]
        )
    if format_ == "Preference":
        return tiny.jsonl(tiny.preference_rows(40))
    if format_ == "KTO":
        return tiny.jsonl(tiny.judged_rows(40))
    if format_ == "Text":
        return tiny.jsonl([{"text": f"{row['instruction']} {row['output']}"} for row in alpaca])
    return tiny.jsonl(
        [
            {
                "messages": [
                    {"role": "user", "content": row["instruction"]},
                    {"role": "assistant", "content": row["output"]},
                ]
            }
            for row in alpaca
        ]
    )


def _made_small(run: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Returns the example on the tiny model, for four steps; all else stays as it is written."""
    spec = run["spec"]
    for source in ("model", "tokenizer"):
        if source in spec:
            spec[source]["uri"] = "s3://models/tiny/"
    if "architecture" in spec:
        spec["architecture"] |= {"hiddenSize": 48, "numHiddenLayers": 2, "intermediateSize": 96}
    for number, dataset in enumerate(spec["datasets"]):
        key = f"{namespace}/{number}.jsonl"
        cluster.s3_client().put_object(Bucket="data", Key=key, Body=_rows(dataset["format"]))
        dataset["uri"] = f"s3://data/{key}"
    if "evaluation" in spec:  # A smaller share of so few rows may be none.
        spec["evaluation"]["fraction"] = 0.2
    if training := spec.get("training"):  # A tokenizer has none.
        for name in ("epochs", "maxTokens"):
            training.pop(name, None)
        training["maxSteps"] = 4
        training["maxLength"] = min(training["maxLength"], tiny.CONTEXT)
    spec["output"]["uri"] = f"s3://runs/{namespace}/out/"
    run["metadata"]["namespace"] = namespace
    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_accepted_as_it_is(path: Path, namespace: str) -> None:
    text = path.read_text().replace("namespace: llmtrain-demo", f"namespace: {namespace}")
    cluster.kubectl("apply", "-n", namespace, "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_an_example_trains(path: Path, namespace: str) -> None:
    run = _made_small(yaml.safe_load(path.read_text()), namespace)
    name = run["metadata"]["name"]
    cluster.apply(run)
    if "nvidia.com/gpu" in json.dumps(run["spec"]["workers"].get("resources", {})):
        told = cluster.wait_until(
            lambda: cluster.condition(cluster.status_of(namespace, name), "WorkersReady").get(
                "message", ""
            ),
            "a word about the GPUs",
        )
        cluster.wait_until(
            lambda: (
                "nvidia.com/gpu"
                in cluster.condition(cluster.status_of(namespace, name), "WorkersReady")["message"]
            ),
            f"it says that the cluster has no GPU: {told}",
            seconds=60,
        )
        return
    status = cluster.wait_finished(namespace, name)
    assert status["phase"] == "Succeeded"
    done, _, total = status["progress"]["summary"].partition("/")
    assert done == total == str(status["progress"]["totalSteps"])
    assert done == "4" or run["spec"]["stage"] == "Tokenizer"  # Its steps are documents.
