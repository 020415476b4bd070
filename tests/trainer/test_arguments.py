"""A spec becomes SFTConfig's arguments, and free arguments are checked against it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.errors import ConfigError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.stages import arguments
from llmtrain_trainer.stages.arguments import check_arguments, map_spec
from llmtrain_trainer.stages.devices import Device

CPU = Device("cpu", "cpu", bf16=False)
GPU = Device("cuda", "NVIDIA H100 80GB HBM3", bf16=True)
TYPES: dict[str, Any] = {
    "adam_beta1": float,
    "adam_beta2": float,
    "neftune_noise_alpha": float | None,
    "dataloader_num_workers": int,
    "learning_rate": float,
    "output_dir": str,
    "fsdp": bool | str,
}
PAIRS = [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}]
MARKS = [{"uri": "s3://data/marks.jsonl", "format": "KTO"}]


def spec(changes: dict[str, Any] | None = None) -> RunSpec:
    return RunSpec.model_validate(jobs.small_spec(changes))


def mapped(changes: dict[str, Any] | None = None, device: Device = CPU) -> dict[str, Any]:
    precision = "BF16" if device.bf16 else "FP32"
    return map_spec(spec(changes), device, precision, Path("/out"), distributed=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"training.globalBatchSize": 32, "workers": {"nodes": 2, "processesPerNode": 2}},
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
            id="accumulation follows from the global batch",
        ),
        pytest.param(
            {},
            {"max_steps": 12, "num_train_epochs": 1.0},
            id="steps win where they are given",
        ),
        pytest.param(
            {"training.maxSteps": None, "training.epochs": 2.5},
            {"max_steps": -1, "num_train_epochs": 2.5},
            id="epochs otherwise",
        ),
        pytest.param(
            {"evaluation": {"fraction": 0.1}},
            {"eval_strategy": "no", "per_device_eval_batch_size": 2},
            id="without everySteps nothing is evaluated on the way",
        ),
        pytest.param(
            {"evaluation": {"fraction": 0.1, "everySteps": 7, "batchSize": 5}},
            {"eval_strategy": "steps", "eval_steps": 7, "per_device_eval_batch_size": 5},
            id="evaluation every few steps",
        ),
        pytest.param(
            {"evaluation": {"fraction": 0.1, "atStart": True}, "training.groupByLength": True},
            {"eval_on_start": True, "train_sampling_strategy": "group_by_length"},
            id="evaluation at the start, and rows of one length together",
        ),
        pytest.param(
            {"training.warmupSteps": 0.1, "training.lrSchedulerType": "cosine"},
            {"warmup_steps": 0.1, "lr_scheduler_type": "cosine"},
            id="schedules by transformers' names",
        ),
        pytest.param(
            {"checkpoint": {"everySteps": 3, "keep": 1}},
            {"save_strategy": "steps", "save_steps": 3, "save_total_limit": None},
            id="checkpoints are kept until the launcher has them",
        ),
        pytest.param(
            {},
            {"use_cpu": True, "bf16": False, "ddp_backend": "gloo", "dataloader_pin_memory": False},
            id="a CPU",
        ),
        pytest.param(
            {},
            {
                "logging_nan_inf_filter": False,
                "report_to": [],
                "ddp_find_unused_parameters": False,
                "use_cache": False,
            },
            id="what llmtrain promises in every run",
        ),
        pytest.param(
            {"training.deterministic": True}, {"full_determinism": True}, id="the same bits"
        ),
    ],
)
def test_map_spec(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    result = mapped(changes)
    assert {name: result[name] for name in expected} == expected


def test_a_gpu_that_computes_in_bf16() -> None:
    result = mapped(device=GPU)
    assert not result["use_cpu"]
    assert result["bf16"]
    assert result["ddp_backend"] == "nccl"


def test_good_arguments_pass() -> None:
    check_arguments({"adam_beta1": 0.8, "neftune_noise_alpha": None}, TYPES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            {"adam_beta": 0.9},
            "training.arguments.adam_beta: SFTConfig has no such argument: did you mean"
            " adam_beta2 or adam_beta1?",
            id="an unknown argument, with the nearest known ones",
        ),
        pytest.param(
            {"zzz": 1},
            "training.arguments.zzz: SFTConfig has no such argument: see TRL's SFTConfig",
            id="an unknown argument that is like no other",
        ),
        pytest.param(
            {"learning_rate": 1e-4},
            "training.arguments.learning_rate: training.learningRate owns it: set"
            " training.learningRate instead",
            id="an argument that a field owns",
        ),
        pytest.param(
            {"fsdp": True},
            "training.arguments.fsdp: spreads training over devices in a way that is not supported",
            id="an argument that breaks llmtrain's promises",
        ),
        pytest.param(
            {"dataloader_num_workers": "many"},
            "training.arguments.dataloader_num_workers: 'many' does not do: Input should be a valid"
            " integer",
            id="an argument of the wrong type",
        ),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_arguments(given, TYPES)
    assert message in str(error.value)


STAGES: dict[str, dict[str, Any]] = {
    "SFT": {},
    "DPO": {"stage": "DPO", "datasets": PAIRS, "tuning.lora.dropout": 0},
    "KTO": {"stage": "KTO", "datasets": MARKS, "tuning.lora.dropout": 0},
    "Reward": {"stage": "Reward", "datasets": PAIRS, "tuning.lora.dropout": 0},
}
REFUSED = {name for names in arguments._REFUSED.values() for name in names}


@pytest.mark.torch
def test_every_name_we_know_is_known_to_a_trainer() -> None:
    known: set[str] = set()
    for stage, changes in STAGES.items():
        names = {field.name for field in fields(arguments._config_class(spec(changes)))}
        assert not arguments.owners(stage).keys() - names
        assert not arguments.owners(stage).keys() & REFUSED
        known |= names
    assert not REFUSED - known


@pytest.mark.parametrize("stage", STAGES)
def test_every_argument_we_set_is_owned_or_refused_but_two(stage: str) -> None:
    free = mapped(STAGES[stage]).keys() - arguments.owners(stage).keys() - REFUSED
    assert free - {"shuffle_dataset"} == {"dataloader_pin_memory"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {**STAGES["DPO"], "dpo": {"lossType": ["ipo", "sft"], "lossWeights": [1, 0.5]}},
            {
                "loss_type": ["ipo", "sft"],
                "loss_weights": [1, 0.5],
                "beta": 0.1,
                "label_smoothing": 0,
                "precompute_ref_log_probs": False,
                "disable_dropout": True,
                "max_length": 128,
            },
            id="DPO",
        ),
        pytest.param(
            {**STAGES["KTO"], "kto": {"desirableWeight": 2, "disableDropout": False}},
            {
                "loss_type": "kto",
                "desirable_weight": 2,
                "undesirable_weight": 1,
                "disable_dropout": False,
            },
            id="KTO",
        ),
        pytest.param(
            {**STAGES["Reward"], "reward": {"centerRewardsCoefficient": 0.01}},
            {"center_rewards_coefficient": 0.01, "disable_dropout": True, "max_length": 128},
            id="Reward",
        ),
    ],
)
def test_the_block_of_a_stage_becomes_arguments(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    result = mapped(changes)
    assert {name: result[name] for name in expected} == expected
    assert "packing" not in result
    assert "reference_model" not in result


@pytest.mark.torch
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"training.optim": "adam"},
            "training.optim: transformers has no optimizer 'adam': use one of adamw_torch, ",
            id="an unknown optimizer",
        ),
        pytest.param(
            {"training.arguments": {"adam_beta": 0.9}},
            "training.arguments.adam_beta: SFTConfig has no such argument",
            id="an unknown argument",
        ),
        pytest.param(
            {**STAGES["DPO"], "training.arguments": {"packing": True}},
            "training.arguments.packing: DPOConfig has no such argument",
            id="pairs cannot be packed",
        ),
        pytest.param(
            {**STAGES["DPO"], "training.arguments": {"padding_free": True}},
            "training.arguments.padding_free: has no effect in this version of TRL: remove it",
            id="an argument that TRL passes over",
        ),
        pytest.param(
            {**STAGES["KTO"], "training.arguments": {"beta": 0.3}},
            "training.arguments.beta: kto.beta owns it: set kto.beta instead",
            id="an argument that the stage's block owns",
        ),
        pytest.param(
            {**STAGES["DPO"], "training.arguments": {"sync_ref_model": True}},
            "training.arguments.sync_ref_model: moves the reference model",
            id="a reference that moves",
        ),
    ],
)
def test_check_against_the_installed_libraries(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        arguments.check(spec(changes))
    assert message in str(error.value)


@pytest.mark.torch
def test_build_honours_fields_and_free_arguments(tmp_path: Path) -> None:
    changes = {"training.arguments": {"adam_beta2": 0.9, "shuffle_dataset": False}}
    config = arguments.build(spec(changes), CPU, "FP32", tmp_path)
    written = vars(config)
    assert (written["adam_beta2"], written["shuffle_dataset"]) == (0.9, False)
    assert (config.activation_checkpointing, config.bf16) == (False, False)
    assert config.save_steps == 6


@pytest.mark.torch
def test_arguments_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    changes = {"training.arguments": {"dataloader_prefetch_factor": 2}}
    with pytest.raises(ConfigError, match=r"training\.arguments: SFTConfig refuses them"):
        arguments.build(spec(changes), CPU, "FP32", tmp_path)
