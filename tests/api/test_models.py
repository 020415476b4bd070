from __future__ import annotations

from typing import Any

import pytest
import specs
from mistakes import BAD_NAMES, FROM_ITSELF, MISTAKES, Mistake
from pydantic import ValidationError

from llmtrain_api.crd.definition import llmtrainruns
from llmtrain_api.references import MAX_NAME_LENGTH, Parent
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import RunFile, spec_hash

SPEC_SCHEMA = llmtrainruns()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
    "spec"
]


@pytest.mark.parametrize(
    "spec",
    [
        *(pytest.param(specs.good(one), id=f"the smallest of {one}") for one in specs.STAGES),
        *(pytest.param(specs.everything(one), id=f"the fullest of {one}") for one in specs.KINDS),
        pytest.param(
            specs.changed(specs.good(), "model.uri", "file:///models/x"),
            id="a folder of this machine, on the command line only",
        ),
        pytest.param(
            {**specs.good(), "stage": "Pretrain", "datasets": specs.good("Pretrain")["datasets"]},
            id="pretraining that goes on from a model",
        ),
    ],
)
def test_a_good_spec_is_taken(spec: specs.Spec) -> None:
    assert RunSpec.model_validate(spec).stage == spec["stage"]


@pytest.mark.parametrize("mistake", [pytest.param(mistake, id=mistake.id) for mistake in MISTAKES])
def test_a_mistake_is_refused(mistake: Mistake) -> None:
    with pytest.raises(ValidationError):
        RunSpec.model_validate(mistake.spec())


@pytest.mark.parametrize("mistake", [pytest.param(mistake, id=mistake.id) for mistake in BAD_NAMES])
def test_a_bad_name_is_refused(mistake: Mistake) -> None:
    with pytest.raises(ValidationError, match=f"use at most {MAX_NAME_LENGTH} lower-case letters"):
        RunFile.model_validate({"name": mistake.name, "spec": specs.good()})


@pytest.mark.parametrize(
    "mistake", [pytest.param(mistake, id=mistake.id) for mistake in FROM_ITSELF]
)
def test_a_run_cannot_start_from_itself(mistake: Mistake) -> None:
    with pytest.raises(ValidationError, match="is this run itself, which would wait for ever"):
        RunFile.model_validate({"name": mistake.name, "spec": mistake.spec()})
    RunFile.model_validate({"name": "other", "spec": mistake.spec()})


def test_the_api_server_refuses_a_run_from_itself_too() -> None:
    schema = llmtrainruns()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = {rule["fieldPath"]: rule["rule"] for rule in schema["x-kubernetes-validations"]}
    for field in ("model", "tokenizer"):
        assert rules[f".spec.{field}.fromRun.name"].endswith("!= self.metadata.name")


def test_a_resolved_spec_reads_as_if_it_named_the_folder() -> None:
    chained = RunSpec.model_validate(specs.everything("KTO"))
    assert list(chained.references) == ["model"]
    parent = Parent(field="model", name="sft", uid="u", uri="s3://runs/sft/model/")
    resolved = chained.resolved([parent])
    by_hand = specs.changed(specs.everything("KTO"), "model", {"uri": "s3://runs/sft/model/"})
    assert resolved == RunSpec.model_validate(by_hand)
    assert resolved.references == {}
    assert spec_hash(resolved) == spec_hash(RunSpec.model_validate(by_hand))


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        pytest.param(
            {"training.learningRate": 2},
            ("training", "learningRate"),
            "use a value between 0 and 1",
            id="a rule about a field",
        ),
        pytest.param(
            {"training.maxSteps": 9},
            ("training",),
            "maxSteps: epochs is set too: remove one of them",
            id="a rule about two fields of a block",
        ),
        pytest.param(
            {"training.globalBatchSize": 10, "training.microBatchSize": 2, "workers.nodes": 2},
            (),
            "training.globalBatchSize: 10 is not a multiple of 4 = workers.nodes 2 x"
            " workers.processesPerNode 1 x training.microBatchSize 2: use 12 or another multiple",
            id="a rule about two blocks, with the numbers at hand",
        ),
        pytest.param(
            {"workers.env": [{"name": "A"}, {"name": "A"}]},
            ("workers", "env"),
            "A stands twice",
            id="twins in a list-map",
        ),
    ],
)
def test_the_message_is_the_one_of_the_cluster(
    changes: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate(Mistake("", changes).spec())
    (error,) = caught.value.errors()
    assert error["loc"] == place
    assert error["msg"].startswith(message)


def with_schema_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Returns `value` with the defaults of `schema` in place, as the API server fills them in."""
    if isinstance(value, list):
        return [with_schema_defaults(item, schema["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    fields = schema["properties"]
    defaults = {name: f["default"] for name, f in fields.items() if "default" in f}
    return {
        name: with_schema_defaults(item, fields[name])
        for name, item in {**defaults, **value}.items()
    }


def without_empty(value: Any) -> Any:
    """Returns `value` without empty blocks and lists, which mean the same as none."""
    if not isinstance(value, dict):
        return value
    inner = {name: without_empty(item) for name, item in value.items()}
    return {name: item for name, item in inner.items() if item not in ({}, [])}


@pytest.mark.parametrize(
    "spec",
    [
        *(pytest.param(specs.good(one), id=f"the smallest of {one}") for one in specs.STAGES),
        *(pytest.param(specs.everything(one), id=f"the fullest of {one}") for one in specs.STAGES),
        pytest.param(
            specs.changed(specs.good(), "tuning.lora", {}),
            id="an optional block with nothing in it",
        ),
    ],
)
def test_the_cluster_fills_in_the_defaults_of_the_models(spec: specs.Spec) -> None:
    stored = with_schema_defaults(spec, SPEC_SCHEMA)
    read = RunSpec.model_validate(stored)
    assert read == RunSpec.model_validate(spec)
    assert without_empty(read.to_dict()) == without_empty(stored)


def test_defaults_are_not_shared_between_runs() -> None:
    one, other = (RunSpec.model_validate(specs.good()) for _ in range(2))
    one.require_training().arguments["adam_beta1"] = 0.5
    assert other.require_training().arguments == {}


@pytest.mark.parametrize(
    ("batch", "micro", "nodes", "processes", "accumulation"),
    [
        pytest.param(8, 1, 1, 1, 8, id="one process accumulates"),
        pytest.param(64, 4, 2, 8, 1, id="sixteen processes do not"),
        pytest.param(96, 4, 3, 2, 4, id="six processes accumulate"),
    ],
)
def test_accumulation_is_derived(
    batch: int, micro: int, nodes: int, processes: int, accumulation: int
) -> None:
    changes = {
        "training.globalBatchSize": batch,
        "training.microBatchSize": micro,
        "workers.nodes": nodes,
        "workers.processesPerNode": processes,
    }
    spec = RunSpec.model_validate(Mistake("", changes).spec())
    assert spec.world_size == nodes * processes
    assert spec.gradient_accumulation_steps == accumulation


def test_a_spec_survives_the_way_through_yaml() -> None:
    spec = RunSpec.model_validate(specs.everything())
    assert RunSpec.model_validate(spec.to_dict()) == spec
    assert spec.to_dict() == specs.everything()
