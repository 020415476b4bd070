"""From a run's spec to the arguments of its trainer, and the check of `training.arguments`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from llmtrain_api.errors import ConfigError
from llmtrain_api.run import RunSpec
from llmtrain_api.stages.preference import DPO, KTO, Reward
from llmtrain_api.stages.sft import SFT
from llmtrain_trainer.stages.devices import Device, Precision, choose_backend

if TYPE_CHECKING:
    from transformers import TrainingArguments

_OWNERS = {
    "activation_checkpointing": "training.activationCheckpointing",
    "auto_find_batch_size": "training.microBatchSize",
    "bf16": "training.precision",
    "bf16_full_eval": "training.precision",
    "do_eval": "evaluation",
    "eval_on_start": "evaluation.atStart",
    "eval_steps": "evaluation.everySteps",
    "eval_strategy": "evaluation.everySteps",
    "fp16": "training.precision",
    "fp16_full_eval": "training.precision",
    "full_determinism": "training.deterministic",
    "gradient_accumulation_steps": "training.globalBatchSize",
    "gradient_checkpointing": "training.activationCheckpointing",
    "learning_rate": "training.learningRate",
    "load_best_model_at_end": "evaluation.loadBestModelAtEnd",
    "logging_steps": "training.loggingSteps",
    "logging_strategy": "training.loggingSteps",
    "lr_scheduler_type": "training.lrSchedulerType",
    "max_grad_norm": "training.maxGradNorm",
    "max_length": "training.maxLength",
    "max_steps": "training.maxSteps",
    "metric_for_best_model": "evaluation.metricForBestModel",
    "num_train_epochs": "training.epochs",
    "optim": "training.optim",
    "output_dir": "output.uri",
    "per_device_eval_batch_size": "evaluation.batchSize",
    "per_device_train_batch_size": "training.microBatchSize",
    "report_to": "tracking",
    "resume_from_checkpoint": "output.uri",
    "save_steps": "checkpoint.everySteps",
    "save_strategy": "checkpoint.everySteps",
    "save_total_limit": "checkpoint.keep",
    "seed": "training.seed",
    "train_sampling_strategy": "training.groupByLength",
    "warmup_steps": "training.warmupSteps",
    "weight_decay": "training.weightDecay",
}
"""The field of the spec that owns an argument, in every stage."""

_STAGE_OWNERS = {
    "SFT": {
        "assistant_only_loss": "sft.loss",
        "completion_only_loss": "sft.loss",
        "packing": "sft.packing",
    },
    "DPO": {
        "beta": "dpo.beta",
        "disable_dropout": "dpo.disableDropout",
        "label_smoothing": "dpo.labelSmoothing",
        "loss_type": "dpo.lossType",
        "loss_weights": "dpo.lossWeights",
        "precompute_ref_log_probs": "dpo.precomputeRefLogProbs",
    },
    "KTO": {
        "beta": "kto.beta",
        "desirable_weight": "kto.desirableWeight",
        "disable_dropout": "kto.disableDropout",
        "loss_type": "kto.lossType",
        "precompute_ref_log_probs": "kto.precomputeRefLogProbs",
        "undesirable_weight": "kto.undesirableWeight",
    },
    "Reward": {
        "center_rewards_coefficient": "reward.centerRewardsCoefficient",
        "disable_dropout": "reward.disableDropout",
    },
}
"""The field of a stage's own block that owns an argument of its trainer."""

_REFUSED = {
    "reads the data in another way than llmtrain prepared it": (
        "chat_template_path",
        "dataset_kwargs",
        "dataset_num_proc",
        "dataset_text_field",
        "eos_token",
        "label_names",
        "model_init_kwargs",
        "pad_token",
        "remove_unused_columns",
        "truncation_mode",
        "trust_remote_code",
    ),
    "spreads training over devices in a way that is not supported": (
        "accelerator_config",
        "ddp_backend",
        "ddp_find_unused_parameters",
        "deepspeed",
        "fsdp",
        "fsdp_config",
        "local_rank",
        "parallelism_config",
        "use_cpu",
    ),
    "is the business of llmtrain's own checkpoints and logs": (
        "disable_tqdm",
        "do_predict",
        "do_train",
        "enable_jit_checkpoint",
        "greater_is_better",
        "ignore_data_skip",
        "include_num_input_tokens_seen",
        "log_on_each_node",
        "logging_nan_inf_filter",
        "restore_callback_states_from_checkpoint",
        "save_on_each_node",
        "save_only_model",
        "use_cache",
    ),
    "would make the result depend on how rows are batched, or leave rows out": (
        "average_tokens_across_devices",
        "dataloader_drop_last",
        "length_column_name",
    ),
    "moves the reference model, which is in no checkpoint, so that a resumed run would differ": (
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
        "sync_ref_model",
    ),
    "belongs to a service that llmtrain does not use": (
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "project",
        "push_to_hub",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
    ),
}

_STAGE_REFUSED = {"DPO": {"padding_free": "has no effect in this version of TRL"}}


def owners(stage: str) -> dict[str, str]:
    """Returns the fields of the spec that own arguments of a stage's trainer, by argument."""
    return {**_OWNERS, **_STAGE_OWNERS.get(stage, {})}


def check_arguments(
    arguments: Mapping[str, Any],
    types: Mapping[str, Any],
    owner: str = "SFTConfig",
    stage: str = "SFT",
) -> None:
    """Checks the free `training.arguments` of a spec.

    Args:
        arguments: What the user wrote.
        types: Name and type of every argument that there is.
        owner: The class that takes them.
        stage: The stage whose trainer reads them.

    Raises:
        ConfigError: One is unknown, owned by a field of the spec, or of the wrong type.
    """
    refused = {name: reason for reason, names in _REFUSED.items() for name in names}
    refused |= _STAGE_REFUSED.get(stage, {})
    owned = owners(stage)
    for name, value in arguments.items():
        field = f"training.arguments.{name}"
        if name in owned:
            raise ConfigError(field, f"{owned[name]} owns it", f"set {owned[name]} instead")
        if name in refused:
            raise ConfigError(field, refused[name], "remove it")
        if name not in types:
            near = difflib.get_close_matches(name, types, n=3)
            library = "transformers'" if owner == "TrainingArguments" else "TRL's"
            advice = f"did you mean {' or '.join(near)}?" if near else f"see {library} {owner}"
            raise ConfigError(field, f"{owner} has no such argument", advice)
        _check_type(field, value, types[name])


def _check_type(field: str, value: Any, expected: Any) -> None:
    try:
        TypeAdapter(expected).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise ConfigError(field, f"{value!r} does not do: {problem}", "correct it") from error


def map_spec(
    spec: RunSpec, device: Device, precision: Precision, folder: Path, *, distributed: bool
) -> dict[str, Any]:
    """Returns the arguments that the fields of `spec` stand for.

    `folder` takes the checkpoints; `distributed` says that torchrun started this process. What no
    field of the spec says, and llmtrain's promises do not need, is left at the library's default.
    """
    training, evaluation = spec.require_training(), spec.evaluation
    every_steps = evaluation.every_steps if evaluation is not None else None
    batch_size = evaluation.batch_size if evaluation is not None else None
    grouped = {"train_sampling_strategy": "group_by_length"} if training.group_by_length else {}
    return {
        "output_dir": str(folder),
        **_data(spec),
        **grouped,
        # The optimizer and its schedule.
        "per_device_train_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "num_train_epochs": training.epochs if training.epochs is not None else 1.0,
        "max_steps": spec.steps if spec.steps is not None else -1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optim,
        "seed": training.seed,
        "full_determinism": training.deterministic,
        # The device.
        "use_cpu": device.kind == "cpu",
        "bf16": precision == "BF16",
        "activation_checkpointing": training.activation_checkpointing,
        "use_cache": False,
        "ddp_backend": choose_backend(device, distributed=distributed),
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": device.kind != "cpu",
        # Logs, evaluation and checkpoints.
        "logging_steps": training.logging_steps,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "eval_strategy": "steps" if every_steps is not None else "no",
        "eval_steps": every_steps,
        "eval_on_start": evaluation is not None and evaluation.at_start,
        "per_device_eval_batch_size": batch_size or training.micro_batch_size,
        "save_strategy": "steps",
        "save_steps": spec.checkpoint.every_steps,
        "save_total_limit": None,
    }


def _data(spec: RunSpec) -> dict[str, Any]:
    """Returns what is said of the data and the loss; rows come as token ids."""
    if spec.stage == "Pretrain":  # Its collator makes columns that the model does not name.
        return {"remove_unused_columns": False}
    return {"max_length": spec.require_training().max_length, **_loss(spec)}


def _loss(spec: RunSpec) -> dict[str, Any]:
    """Returns what the stage's own block stands for."""
    match spec.stage:
        case "DPO":
            return (spec.dpo or DPO()).model_dump(exclude={"reference_model"})
        case "KTO":
            return (spec.kto or KTO()).model_dump(exclude={"reference_model"})
        case "Reward":
            return (spec.reward or Reward()).model_dump()
        case _:  # Rows come with labels; TRL packs and batches them.
            return {"packing": (spec.sft or SFT()).packing, "shuffle_dataset": True}


def _config_class(spec: RunSpec) -> type[TrainingArguments]:
    """Returns the class that takes the arguments of the stage's trainer."""
    match spec.stage:
        case "Pretrain":
            from transformers import TrainingArguments

            return TrainingArguments
        case "DPO":
            from trl.trainer.dpo_config import DPOConfig

            return DPOConfig
        case "KTO":
            from trl.trainer.kto_config import KTOConfig

            return KTOConfig
        case "Reward":
            from trl.trainer.reward_config import RewardConfig

            return RewardConfig
        case _:
            from trl.trainer.sft_config import SFTConfig

            return SFTConfig


def check(spec: RunSpec) -> None:
    """Checks `training.optim` and `training.arguments` against the installed libraries.

    Raises:
        ConfigError: One of them does not work.
    """
    from transformers.training_args import OptimizerNames  # Late: imports take seconds.

    known = [str(optimizer.value) for optimizer in OptimizerNames]
    training = spec.require_training()
    if training.optim not in known:
        raise ConfigError(
            "training.optim",
            f"transformers has no optimizer '{training.optim}'",
            f"use one of {', '.join(known)}",
        )
    owner = _config_class(spec)
    hints = get_type_hints(owner)
    types = {field.name: hints[field.name] for field in fields(owner) if field.init}
    check_arguments(training.arguments, types, owner.__name__, spec.stage)


def build(spec: RunSpec, device: Device, precision: Precision, folder: Path) -> TrainingArguments:
    """Returns the arguments of a checked spec; the process group is initialised on the way.

    Raises:
        ConfigError: Their class refuses them as a whole.
    """
    owner = _config_class(spec)
    fixed = map_spec(spec, device, precision, folder, distributed="RANK" in os.environ)
    try:
        return owner(**{**fixed, **spec.require_training().arguments})
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(
            "training.arguments",
            f"{owner.__name__} refuses them ({error})",
            "correct or remove them",
        ) from error
