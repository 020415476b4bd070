from __future__ import annotations

import json
from typing import Any

import other_values
import pytest
import specs
from pydantic.alias_generators import to_camel

from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import SPEC_FIELDS_THAT_MAKE_THE_RESULT, RunFile, spec_hash


def hash_of(spec: specs.Spec) -> str:
    return spec_hash(RunSpec.model_validate(spec))


FIRST_VERSION: specs.Spec = {
    "stage": "SFT",
    "model": {"uri": "s3://models/smollm2-135m/"},
    "datasets": [
        {"uri": "s3://data/a.jsonl", "format": "Alpaca"},
        {"uri": "s3://data/b.jsonl", "format": "Messages"},
    ],
    "evaluation": {"fraction": 0.1, "everySteps": 50, "batchSize": 2},
    "sft": {"packing": False, "loss": "AnswersOnly"},
    "tuning": {
        "method": "LoRA",
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "targetModules": ["q_proj", "v_proj"]},
    },
    "training": {
        "epochs": 3,
        "globalBatchSize": 32,
        "microBatchSize": 4,
        "maxLength": 512,
        "learningRate": 1.0e-4,
        "lrSchedulerType": "cosine",
        "warmupSteps": 0.1,
        "weightDecay": 0.01,
        "maxGradNorm": 1,
        "optim": "adamw_torch",
        "precision": "BF16",
        "activationCheckpointing": True,
        "loggingSteps": 5,
        "seed": 1,
        "arguments": {"adam_beta1": 0.8, "lr_scheduler_kwargs": {"num_cycles": 2}},
    },
    "output": {"uri": "s3://runs/everything/", "export": {"mergeAdapter": True}},
    "workers": {"nodes": 2, "processesPerNode": 2},
}
"""All fields that made the result in the first version. Never changed, as its hash is not."""


def test_the_hash_never_changes() -> None:
    """A run that started before an upgrade must find its output prefix its own afterwards."""
    assert hash_of(specs.good()) == (
        "9287d6fd2c205e2a1372fa60fd60b41d5a18b627ad8ec200ab840d39bc685cd2"
    )
    assert hash_of(FIRST_VERSION) == (
        "a40ab3d50b53c6714c56731d26b9dbba26109452e155bb406af40080d3a756d6"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("training.seed", 42, id="a default that is written out"),
        pytest.param("sft", {}, id="an empty block"),
        pytest.param("training.epochs", 1.0, id="a whole number as float"),
        pytest.param("workers.resources", {"limits": {"cpu": 4}}, id="where pods run"),
        pytest.param("workers.image", "trainer:2", id="what pods run"),
        pytest.param("storage.secretName", "other", id="how storage is reached"),
        pytest.param("restartPolicy.maxRestarts", 9, id="how often the run restarts"),
        pytest.param("checkpoint.everySteps", 7, id="how often it is saved"),
        pytest.param("suspend", True, id="whether it is suspended"),
        pytest.param("retry", 3, id="how often it was tried again"),
    ],
)
def test_what_does_not_make_the_weights_does_not_count(path: str, value: Any) -> None:
    assert hash_of(specs.changed(specs.good(), path, value)) == hash_of(specs.good())


def test_the_default_of_mixing_does_not_count_where_it_is_written_out() -> None:
    spec = specs.changed(specs.everything(), "training.mixing", specs.REMOVE)
    written = specs.changed(spec, "training.mixing", "FirstExhausted")
    assert hash_of(written) == hash_of(spec)


def test_the_order_of_fields_does_not_count() -> None:
    spec = specs.everything()
    assert hash_of(dict(reversed(spec.items()))) == hash_of(spec)


NOT_ALONE = {
    *("stage", "model", "architecture", "tokenizer", "tokenizerTraining", "tuning", "training"),
    *("tuning.method", "sft", "custom", "model.fromRun", "tokenizer.fromRun"),
    "evaluate.predict.doSample",
}
"""What cannot change by itself in `everything`; its `sft` is as good as none."""


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in other_values.OTHER_VALUES
        if path.split(".")[0] in SPEC_FIELDS_THAT_MAKE_THE_RESULT and path not in NOT_ALONE
    ],
)
def test_what_makes_the_weights_counts(path: str) -> None:
    spec = specs.holding(path)
    other = specs.changed(spec, path, other_values.OTHER_VALUES[path])
    assert hash_of(other) != hash_of(spec)


def test_the_stage_counts() -> None:
    hashes = [hash_of(specs.everything(stage)) for stage in specs.STAGES]
    assert len(set(hashes)) == len(specs.STAGES)


def test_the_number_of_processes_counts() -> None:
    twice = specs.changed(specs.good(), "workers.nodes", 2)
    pair = specs.changed(specs.good(), "workers.processesPerNode", 2)
    assert len({hash_of(specs.good()), hash_of(twice), hash_of(pair)}) == 3


def test_every_field_of_a_spec_is_judged() -> None:
    """A new block of the spec makes the weights, or it is named here as one that does not."""
    without = {
        "checkpoint",
        "prepare",
        "workers",
        "storage",
        "tracking",
        "restart_policy",
        "start_timeout_seconds",
        "suspend",
        "retry",
        "ttl_seconds_after_finished",
    }
    made = {*SPEC_FIELDS_THAT_MAKE_THE_RESULT, *map(to_camel, without)}
    assert set(map(to_camel, RunSpec.model_fields)) == made


def test_a_run_file_survives_the_way_through_json() -> None:
    run = RunFile.model_validate(
        {"name": "good", "namespace": "team", "uid": "u", "attempt": 2, "spec": specs.everything()}
    )
    assert RunFile.model_validate_json(json.dumps(run.to_dict())) == run
    assert hash_of(run.to_dict()["spec"]) == hash_of(specs.everything())
