"""Each file in `examples/` is applied, first as it is, then on the tiny model to its end."""

from __future__ import annotations

import json
import re
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
    if format_ in ("Alpaca", "Any"):
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


def _spec_of(example: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec of a run, or of the runs of a schedule."""
    spec: dict[str, Any] = example["spec"]
    is_schedule = example["kind"] == "LLMTrainSchedule"
    return spec["runTemplate"]["spec"] if is_schedule else spec


def _upload_rows(datasets: list[dict[str, Any]], namespace: str) -> None:
    """Uploads rows for each data set, and names their place in it."""
    for number, dataset in enumerate(datasets):
        key = f"{namespace}/{number}.jsonl"
        if dataset["format"] == "Any":  # The command knows it by its name.
            key = f"{namespace}/{dataset['uri'].rpartition('/')[2]}"
        cluster.s3_client().put_object(Bucket="data", Key=key, Body=_rows(dataset["format"]))
        dataset["uri"] = f"s3://data/{key}"


def _give_own_cache(spec: dict[str, Any], namespace: str) -> None:
    if "cacheUri" in spec.get("prepare", {}):
        spec["prepare"]["cacheUri"] = f"s3://runs/{namespace}/tokens/"


def _made_small(example: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Returns the example on the tiny model, for four steps; all else stays as it is written."""
    spec = _spec_of(example)
    for source in ("model", "tokenizer"):
        if source in spec:
            spec[source]["uri"] = "s3://models/tiny/"
    if "architecture" in spec:
        spec["architecture"] |= {"hiddenSize": 48, "numHiddenLayers": 2, "intermediateSize": 96}
    _upload_rows(spec.get("datasets", []), namespace)
    if "evaluate" in spec:  # Prompts and answers must fit into the tiny model's context.
        spec["evaluate"]["maxLength"] = tiny.CONTEXT // 2
        spec["evaluate"]["predict"]["maxNewTokens"] = 16
    if "evaluation" in spec:  # A smaller share of so few rows may be none.
        spec["evaluation"]["fraction"] = 0.2
    if training := spec.get("training"):  # What trains no weights has none.
        for name in ("epochs", "maxTokens"):
            training.pop(name, None)
        training["maxSteps"] = 4
        training["maxLength"] = min(training["maxLength"], tiny.CONTEXT)
    _give_own_cache(spec, namespace)
    if custom := spec.get("custom"):
        custom["args"] = [re.sub("(?<=--max_steps=).*", "4", word) for word in custom["args"]]
    if example["kind"] == "LLMTrainSchedule":
        example["spec"] |= {"schedule": "* * * * *", "jitterSeconds": 0}
        spec["output"]["uri"] = spec["output"]["uri"].replace("s3://runs", f"s3://runs/{namespace}")
    else:
        spec["output"]["uri"] = f"s3://runs/{namespace}/out/"
    example["metadata"]["namespace"] = namespace
    return example


def _run_of(schedule: str, namespace: str) -> str:
    """Waits for the first run of a schedule, and returns its name."""
    selector = f"llmtrain.dev/schedule={schedule}"
    made = cluster.wait_until(
        lambda: cluster.list_of("llmtrainruns", namespace, selector), "a run", seconds=75
    )
    return str(made[0]["metadata"]["name"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_accepted_as_it_is(path: Path, namespace: str) -> None:
    text = path.read_text().replace("namespace: llmtrain-demo", f"namespace: {namespace}")
    cluster.kubectl("apply", "-n", namespace, "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_an_example_trains(path: Path, namespace: str) -> None:
    *beside, example = yaml.safe_load_all(path.read_text())
    for document in beside:
        document["metadata"]["namespace"] = namespace
    example = _made_small(example, namespace)
    name, spec = example["metadata"]["name"], _spec_of(example)
    cluster.apply([*beside, example])
    if example["kind"] == "LLMTrainSchedule":
        name = _run_of(name, namespace)
    if "nvidia.com/gpu" in json.dumps(spec["workers"].get("resources", {})):
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
    # A tokenizer's steps are documents, an evaluation's are batches.
    assert done == "4" or spec["stage"] in ("Tokenizer", "Evaluate")
