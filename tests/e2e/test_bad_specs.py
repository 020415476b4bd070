"""What is refused at `kubectl apply`, with the full message as a user reads it.

The messages are compared with `golden/refused_at_apply.txt`; `UPDATE_GOLDEN=1` writes it anew.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import cluster
import other_values
import pytest
import specs
import yaml
from mistakes import BAD_NAMES, FROM_ITSELF, MISTAKES
from pydantic import ValidationError

from llmtrain_api.run import RunSpec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
CRD_FILE = ROOT / "crds" / "llmtrainruns.yaml"
GOLDEN = ROOT / "tests" / "e2e" / "golden" / "refused_at_apply.txt"
CRD = yaml.safe_load(CRD_FILE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True, scope="module")
def _crd(kubectl: object) -> None:
    """Creates the CRD where it is not there; where it is, the chart owns it."""
    if not cluster.kubectl("get", "-f", str(CRD_FILE), check=False).stdout:
        cluster.kubectl("create", "-f", str(CRD_FILE))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(CRD_FILE), "--timeout=30s")


def manifest(name: str, spec: specs.Spec) -> str:
    """Returns the manifest of a run as JSON, which is YAML too."""
    return json.dumps(
        {
            "apiVersion": "llmtrain.dev/v1alpha1",
            "kind": "LLMTrainRun",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def apply(namespace: str, name: str, spec: specs.Spec, *options: str) -> str:
    """Applies a run and returns what kubectl says on stderr: nothing when it is taken."""
    arguments = ("apply", "-n", namespace, "-f", "-", *options)
    return cluster.kubectl(*arguments, stdin=manifest(name, spec), check=False).stderr.strip()


def start(namespace: str, spec: specs.Spec) -> None:
    """Creates a run and makes it look started, as the operator does before it creates pods."""
    assert spec["suspend"], "or the operator would start it"
    name = name_of(spec)
    cluster.kubectl(
        "create", "-n", namespace, "--save-config", "-f", "-", stdin=manifest(name, spec)
    )
    started = json.dumps({"status": {"attempt": 1}})
    arguments = ("llmtrainrun", name, "-n", namespace, "--subresource=status", "--type=merge")
    cluster.kubectl("patch", *arguments, "-p", started)


def name_of(spec: specs.Spec) -> str:
    """Returns the name of the started run of a kind."""
    chained = "fromRun" in spec.get("tokenizer", {})
    return f"started-{'chain' if chained else spec['stage'].lower()}"


def change(namespace: str, path: str, value: Any, spec: specs.Spec) -> str:
    """Changes one field of the started run, without keeping the change."""
    return apply(namespace, name_of(spec), specs.changed(spec, path, value), "--dry-run=server")


def refusal(path: str) -> str:
    """Returns what is said of a change of the field at `path`: its block, and its name in there."""
    block, _, field = path.partition(".")
    named = f"{field} " if field else ""
    return f"spec.{block}: Forbidden: {named}cannot change once the run has started"


def test_each_mistake_is_refused_with_its_message(namespace: str) -> None:
    told = {}
    for case in (*MISTAKES, *BAD_NAMES, *FROM_ITSELF):
        told[case.id] = apply(namespace, case.name, case.spec())
    assert cluster.list_of("llmtrainruns", namespace) == []

    for kind in specs.KINDS:
        start(namespace, specs.everything(kind))
    for path, value in other_values.OTHER_VALUES.items():
        mistake = f"{path} taken away" if value is specs.REMOVE else f"another {path}"
        said = change(namespace, path, value, specs.holding(path))
        assert refusal(path) in said
        told[f"once started, {mistake}"] = said
    for kind in specs.KINDS:
        name = name_of(specs.everything(kind))
        assert cluster.status_of(namespace, name)["attempt"] == 1

    assert [mistake for mistake, message in told.items() if not message] == []
    compare(told)


def compare(told: dict[str, str]) -> None:
    """Compares the messages with the golden file, or writes it."""
    text = "".join(f"## {mistake}\n{message}\n\n" for mistake, message in told.items())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", ["evaluation", "tuning.lora", "training.arguments", "workers.affinity"]
)
def test_a_field_cannot_be_added_once_started(namespace: str, path: str) -> None:
    without = specs.changed(specs.everything(), path, specs.REMOVE)
    start(namespace, without)
    said = change(namespace, path, specs.read(specs.everything(), path), without)
    assert refusal(path) in said


def test_the_first_of_many_changes_is_named(namespace: str) -> None:
    start(namespace, specs.everything())
    training = {**specs.everything()["training"], "seed": 9, "epochs": 9}
    said = change(namespace, "training", training, specs.everything())
    assert refusal("training.epochs") in said
    assert "seed" not in said


def test_mutable_fields_change_once_started(namespace: str) -> None:
    start(namespace, specs.everything())
    for path, value in other_values.MUTABLE_VALUES.items():
        assert change(namespace, path, value, specs.everything()) == ""


@pytest.mark.parametrize("kind", specs.KINDS)
def test_everything_changes_before_the_start(namespace: str, kind: str) -> None:
    assert apply(namespace, "waiting", specs.everything(kind)) == ""
    assert apply(namespace, "waiting", specs.good(), "--dry-run=server") == ""


@pytest.mark.parametrize("kind", specs.KINDS)
def test_the_same_spec_is_taken_again_once_started(namespace: str, kind: str) -> None:
    spec = specs.everything(kind)
    start(namespace, spec)
    assert apply(namespace, name_of(spec), spec) == ""


def test_a_null_among_free_fields_is_kept_and_frozen(namespace: str) -> None:
    """The API server keeps it; `kubectl apply`, which reads null as absent, does not send it."""
    arguments = {"lr_scheduler_kwargs": None, "adam_beta1": 0.8}
    spec = {**specs.changed(specs.good(), "training.arguments", arguments), "suspend": True}
    start(namespace, spec)
    name = name_of(spec)
    stored = cluster.get("llmtrainrun", namespace, name)["spec"]
    assert stored["training"]["arguments"] == arguments

    def replace(changed: specs.Spec) -> str:
        options = ("replace", "-n", namespace, "--dry-run=server", "-f", "-")
        return cluster.kubectl(*options, stdin=manifest(name, changed), check=False).stderr

    assert replace({**spec, "retry": 1}) == ""
    without = specs.changed(spec, "training.arguments", {"adam_beta1": 0.8})
    assert refusal("training.arguments") in replace(without)


def test_a_new_run_counts_as_not_looked_at(namespace: str) -> None:
    created = cluster.kubectl(
        "create", "-n", namespace, "-f", "-", "-o", "json",
        stdin=manifest("new", {**specs.good(), "suspend": True}),
    )  # fmt: skip
    assert json.loads(created.stdout)["status"] == {"observedGeneration": -1}


@pytest.mark.parametrize("stage", specs.STAGES)
def test_defaults_are_the_models(namespace: str, stage: str) -> None:
    created = cluster.kubectl(
        "create", "-n", namespace, "-f", "-", "-o", "json", "--dry-run=server",
        stdin=manifest("new", specs.good(stage)),
    )  # fmt: skip
    stored = json.loads(created.stdout)["spec"]
    assert RunSpec.model_validate(stored) == RunSpec.model_validate(specs.good(stage))


def test_the_stored_crd_is_the_file(kubectl: object) -> None:
    """A difference would look like drift to Argo CD and Flux for ever."""
    stored = json.loads(cluster.kubectl("get", "-f", str(CRD_FILE), "-o", "json").stdout)["spec"]
    assert stored.pop("conversion") == {"strategy": "None"}
    assert stored == CRD["spec"]


# Values of a wrong type are left out: pydantic reads "1e-4" as a number, and so it should, since
# not every YAML reader takes it for one as kubectl's does.
VALUES = {
    "training.learningRate": (1e-9, 0.5, 0.999, 1, 1.5, -1),
    "training.globalBatchSize": (1, 7, 8, 64, 1_000_000, 1_000_001, 0, 8.5),
    "training.microBatchSize": (1, 2, 3, 4096, 4097, 0),
    "training.epochs": (0.5, 1, 10_000, 10_001, 0, specs.REMOVE),
    "training.maxSteps": (1, 100, 0, specs.REMOVE),
    "training.warmupSteps": (0, 0.1, 100, -1),
    "training.optim": ("adafactor", "", "x" * 64, "x" * 65),
    "training.arguments": ({}, {"a": None}, {str(i): i for i in range(65)}, "a"),
    "workers.nodes": (1, 2, 4, 1024, 1025, 0),
    "workers.processesPerNode": (1, 8, 64, 65),
    "workers.resources": (
        {"limits": {"memory": "16Gi", "cpu": 1, "nvidia.com/gpu": "8"}},
        {"limits": {"memory": ""}},
        {"limits": {"memory": "1e3"}},
        {"limits": {"memory": "+.5E"}},
        {"limits": {"memory": "5."}},
        {"limits": {"memory": "16GB"}},
        {"limits": {"memory": "0x10"}},
        {"requests": {"cpu": 0.5}},
        {"requests": {"cpu": -1}},
    ),
    "workers.env": (
        [{"name": "A"}, {"name": "B", "value": ""}],
        [{"name": "A"}, {"name": "A"}],
        [{"name": "RANK"}],
        [{"name": "RANKS"}],
        [{"name": "1A"}],
        [{"name": ""}],
    ),
    "datasets": (
        [{"uri": "s3://data/a.jsonl", "format": "Alpaca"}],
        [{"uri": "s3://data/a.jsonl", "format": "Alpaca"}] * 2,
        [{"uri": "s3://data/a.json", "format": "Alpaca"}],
        [{"uri": "s3://data/a.jsonl.gz", "format": "Alpaca"}],
        [{"uri": f"s3://data/{i}.jsonl", "format": "Messages"} for i in range(64)],
        [{"uri": f"s3://data/{i}.jsonl", "format": "Messages"} for i in range(65)],
        [],
    ),
    "model.uri": ("s3://abc", "s3://ab/x", "s3://abc/x y", "s3://-bc/x", "S3://abc/x", "", "s3://"),
    "output.uri": ("s3://runs/x/", "s3://runs", "s3://runs\n", "s3://runs/" + "x" * 1100),
    "output.export": ({}, {"mergeAdapter": True}),
    "storage.endpoint": ("http://x:1", "https://x", "http://x/", "x:1", "http://x y"),
    "tuning": (
        {"method": "LoRA"},
        {"method": "Full"},
        {"method": "LoRA", "lora": {"dropout": 1}},
        {"method": "LoRA", "lora": {"dropout": 0.1}},
        {"method": "LoRA", "lora": {"dropout": 0, "targetModules": []}},
        {"method": "Full", "lora": {"rank": 1}},
    ),
    "evaluation": ({"fraction": 0.5}, {}, {"fraction": 1e-9}, {"fraction": 0.1, "everySteps": 0}),
    "model": (
        specs.REMOVE,
        {"uri": "s3://models/x/"},
        {"fromRun": {"name": "a"}},
        {"fromRun": {"name": "a", "checkpoint": 400}},
        {"fromRun": {"name": "a", "checkpoint": "400"}},
        {"fromRun": {"name": "a"}, "uri": "s3://models/x/"},
    ),
    "architecture": (
        specs.REMOVE,
        specs.read(specs.everything("Pretrain"), "architecture"),
        {"family": "phi", "hiddenSize": 24, "numHiddenLayers": 1, "numAttentionHeads": 4},
        {"family": "gpt2", "hiddenSize": 12, "numHiddenLayers": 1, "numAttentionHeads": 4},
    ),
    "architecture.numAttentionHeads": (0, 1, 2, 4, 5, 1025),
    "architecture.numKeyValueHeads": (0, 1, 2, 3, specs.REMOVE),
    "architecture.maxPositionEmbeddings": (8, 1023, 1024, 7),
    "tokenizer": (specs.REMOVE, {"uri": "s3://runs/x/model/"}, {"fromRun": {"name": "a"}}),
    "tokenizerTraining": (
        specs.REMOVE,
        {"vocabSize": 300},
        {"vocabSize": 299},
        {"vocabSize": 1000, "specialTokens": {"eosToken": "", "extra": []}},
        {"vocabSize": 1000, "specialTokens": {"extra": ["<a>"] * 257}},
    ),
    "training": (specs.REMOVE,),
    "training.maxTokens": (1, 10**15, 0, specs.REMOVE),
    "training.maxLength": (8, 2048, 2049, 7),
    "pretrain": ({}, {"isolateDocuments": False}),
    "sft": ({}, {"loss": "AllTokens"}, {"loss": "All"}, {"packing": True}),
    "dpo": (
        {},
        {"lossType": ["sigmoid", "ipo"], "lossWeights": [1, 0]},
        {"lossType": ["sigmoid"], "lossWeights": [1, 0]},
        {"lossType": ["exo_pair"]},
        {"lossType": ["robust"], "labelSmoothing": 0.1},
        {"labelSmoothing": 0.1},
        {"beta": 0},
        {"lossType": []},
    ),
    "kto": ({}, {"desirableWeight": 0}, {"beta": 101}, {"lossType": "apo_zero_unpaired"}),
    "reward": ({}, {"centerRewardsCoefficient": -1}, {"disableDropout": False}),
    "startTimeoutSeconds": (9, 10, 31_536_000, 31_536_001),
}


def random_specs(count: int) -> list[specs.Spec]:
    """Returns specs of all stages with one to three fields set at and beyond their bounds."""
    dice = random.Random(0)
    made = []
    for number in range(count):
        spec = specs.good(specs.STAGES[number % len(specs.STAGES)])
        for path in dice.sample(sorted(VALUES), dice.randint(1, 3)):
            spec = specs.changed(spec, path, dice.choice(VALUES[path]))
        made.append(spec)
    return made


def taken_by_pydantic(spec: specs.Spec) -> bool:
    try:
        RunSpec.model_validate(spec)
    except ValidationError:
        return False
    return True


def test_pydantic_and_the_api_server_agree(namespace: str) -> None:
    """Whatever the API server takes the operator must be able to read, and the other way round."""
    tried = random_specs(600)
    many = "\n---\n".join(manifest(f"spec-{i}", spec) for i, spec in enumerate(tried))
    said = cluster.kubectl(
        "create", "-n", namespace, "--dry-run=server", "-f", "-", "-o", "name",
        stdin=many, check=False,
    )  # fmt: skip
    taken = set(said.stdout.split())
    differ = [
        spec
        for i, spec in enumerate(tried)
        if (f"llmtrainrun.llmtrain.dev/spec-{i}" in taken) != taken_by_pydantic(spec)
    ]
    assert differ == []
    assert 60 < len(taken) < 540


def test_explain_reads_as_documentation(kubectl: object) -> None:
    told = cluster.kubectl("explain", "llmtrainruns.spec.training").stdout
    assert "<no description>" not in told
    assert "<empty>" not in told
    whole = cluster.kubectl("explain", "llmtrainruns", "--recursive").stdout
    assert "learningRate\t<number> -required-" in whole
