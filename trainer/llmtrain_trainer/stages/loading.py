"""Loads what training starts from: the tokenizer, the model, the adapter's settings."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import transformers
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_api.training import LoRA
from llmtrain_trainer.data import templates
from llmtrain_trainer.stages.architecture import config_fields, vocabulary_of
from llmtrain_trainer.stages.devices import (
    Device,
    Precision,
    base_weights_in_bf16,
    choose_attention,
)
from llmtrain_trainer.workdir import Job


def load_tokenizer(job: Job) -> Any:
    """Returns the tokenizer, with the chat template that the spec chooses.

    Raises:
        ConfigError: The chat template does not suit it.
        DataError: transformers cannot load it.
    """
    tokenizer = _read_tokenizer(job)
    sft = job.run.spec.sft
    if sft is not None and sft.chat_template is not None:
        tokenizer.chat_template = templates.resolve(sft.chat_template, tokenizer)
    return tokenizer


def _read_tokenizer(job: Job) -> Any:
    try:
        return AutoTokenizer.from_pretrained(job.model_path)
    except MemoryError:
        raise
    except Exception as error:  # The Rust library below raises plain Exception.
        raise DataError(
            job.run.spec.source_uri,
            f"transformers {transformers.__version__} cannot load its tokenizer ({error})",
            "save it there again with transformers: tokenizer.save_pretrained(folder)",
        ) from error


def load_model(
    job: Job,
    device: Device,
    precision: Precision,
    auto: Any = AutoModelForCausalLM,
    **config: Any,
) -> PreTrainedModel:
    """Returns the model.

    Args:
        job: What to do.
        device: What it will run on.
        precision: The number format of the forward pass.
        auto: The class of transformers that loads it.
        config: Fields of the model's configuration to set.

    Raises:
        DataError: transformers cannot load it.
    """
    spec = job.run.spec
    flash = importlib.util.find_spec("flash_attn") is not None
    in_bf16 = base_weights_in_bf16(spec.method, precision)
    try:
        model: PreTrainedModel = auto.from_pretrained(
            job.model_path,
            dtype=torch.bfloat16 if in_bf16 else torch.float32,
            attn_implementation=choose_attention(device, precision, flash_installed=flash),
            **config,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            spec.source_uri,
            f"transformers {transformers.__version__} cannot load it ({error})",
            "name the folder of a causal language model that this version of transformers knows",
        ) from error
    return model


def new_model(
    spec: RunSpec, tokenizer: Any, device: Device, precision: Precision
) -> PreTrainedModel:
    """Returns a model of the spec's architecture with random weights, the same for a seed.

    Raises:
        ConfigError: transformers does not take the architecture.
    """
    if spec.architecture is None:
        raise ValueError("the spec has no architecture")
    fields = config_fields(spec.architecture, vocabulary_of(tokenizer))
    transformers.set_seed(spec.require_training().seed)
    flash = importlib.util.find_spec("flash_attn") is not None
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.for_model(spec.architecture.family, **fields),
            dtype=torch.float32,
            attn_implementation=choose_attention(device, precision, flash_installed=flash),
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "architecture",
            f"transformers {transformers.__version__} does not take it ({error})",
            "correct its sizes",
        ) from error
    return model


def lora_config(spec: RunSpec, model: PreTrainedModel) -> LoraConfig | None:
    """Returns PEFT's settings of the adapter, or none for full tuning."""
    if spec.method != "LoRA":
        return None
    lora = (spec.tuning and spec.tuning.lora) or LoRA()
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )
    modules = [name for name, _ in model.named_modules()]
    for target in lora.target_modules or []:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            raise ConfigError(
                "tuning.lora.targetModules",
                f"the model has no layer '{target}'",
                f"choose from {', '.join(linear)}, or leave it out for all of them",
            )
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        task_type="SEQ_CLS" if spec.stage == "Reward" else "CAUSAL_LM",
    )
