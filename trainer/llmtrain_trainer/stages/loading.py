"""Loads what training starts from: the tokenizer, the model, the adapter's settings."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
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

logger = logging.getLogger(__name__)


def load_tokenizer(job: Job) -> Any:
    """Returns the tokenizer, with the chat template that the spec chooses.

    Raises:
        ConfigError: The chat template does not suit it.
        DataError: transformers cannot load it.
    """
    tokenizer = _read_tokenizer(job)
    chosen = job.run.spec.chat_template
    if chosen is not None:
        tokenizer.chat_template = templates.resolve(chosen, tokenizer)
    return tokenizer


def _read_tokenizer(job: Job) -> Any:
    try:
        return AutoTokenizer.from_pretrained(job.tokenizer_path)
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
    frozen = spec.stage == "Evaluate"  # As a whole, so that nothing of it must be kept in fp32.
    in_bf16 = base_weights_in_bf16("LoRA" if frozen else spec.method, precision)
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


def put_adapter(model: PreTrainedModel, job: Job) -> PreTrainedModel:
    """Returns the model with the job's adapter on it, which it computes with from then on.

    Raises:
        ConfigError: The adapter is not of this model.
    """
    source = job.run.spec.model
    uri = (source and source.adapter_uri) or ""
    _compare_base(job, uri)
    try:
        with warnings.catch_warnings():
            # PEFT only warns of layers that get no adapter, since a file may hold a part of one.
            warnings.filterwarnings("error", message="(?s).*missing adapter keys")
            adapted: Any = PeftModel.from_pretrained(model, job.adapter_path)
        _check_placed(adapted, Path(job.adapter_path) / "adapter_model.safetensors")
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError, UserWarning, SafetensorError) as error:
        raise ConfigError(
            "model.adapterUri",
            f"{uri} does not fit {job.run.spec.source_uri} ({str(error)[:300]})",
            "name the model that it was trained on as model.uri",
        ) from error
    whole: PreTrainedModel = adapted.get_base_model()
    return whole


def _check_placed(adapted: PeftModel, file: Path) -> None:
    """Holds that the model has a layer for each part of an adapter; PEFT passes over the others."""
    with safe_open(file, "pt") as stored:
        names: list[str] = stored.keys()
        parts = {name for name in names if "lora_" in name}
    placed = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    if lost := sorted(parts - placed):
        raise ValueError(f"it has no place for {len(lost)} of {len(parts)} parts: {lost[0]}")


def _compare_base(job: Job, uri: str) -> None:
    """Warns where an adapter says that it was trained on a model in another place."""
    config = json.loads((Path(job.adapter_path) / "adapter_config.json").read_bytes())
    trained_on = str(config.get("base_model_name_or_path"))
    used = job.run.spec.source_uri
    if trained_on.rstrip("/") != used.rstrip("/"):
        logger.warning("%s was trained on %s and is put on %s", uri, trained_on, used)


def check_embeddings(model: PreTrainedModel, largest_id: int, uri: str) -> None:
    """Holds the tokens against the embeddings: a GPU only says "device-side assert triggered".

    Raises:
        DataError: The tokenizer has more tokens than the model.
    """
    embeddings = next(model.get_input_embeddings().parameters()).shape[0]
    if largest_id >= embeddings:
        raise DataError(
            uri,
            f"its tokenizer makes token {largest_id}, but the model has only {embeddings}"
            " embeddings",
            "upload the tokenizer that belongs to the model",
        )


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
