"""Checks a downloaded model before any process loads it; imports neither torch nor transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data.rows import CHAT_FORMATS

_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_LONGEST_HEADER = 100_000_000  # Bytes; the library itself reads no longer one.
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_RANKS = "ForSequenceClassification"  # How transformers calls models that give a number.


def check_model(folder: Path, spec: RunSpec, adapter: Path | None = None) -> None:
    """Checks that `folder` holds a model that can be used as `spec` says.

    Args:
        folder: Folder of the model.
        spec: The run's spec.
        adapter: Folder of the adapter that is put on it, if any.

    Raises:
        ConfigError: The model and the spec do not fit together.
        DataError: A file that a model must have is missing or malformed.
    """
    uri = spec.source_uri
    if spec.model is not None:  # A new model has none of this.
        _check_is_model(folder, uri)
        check_size(folder, uri, spec.max_length, field=_length_field(spec))
        if spec.stage == "Evaluate":
            _check_evaluated(_read(folder, "config.json", uri), spec)
    if adapter is not None:
        adapter_uri = _check_adapter(adapter, spec)
        if (adapter / _TOKENIZER).is_file():  # The one that it was trained with.
            folder, uri = adapter, adapter_uri
    if not (folder / _TOKENIZER).is_file():
        raise DataError(
            uri,
            f"has no {_TOKENIZER}",
            "save the tokenizer there with transformers: tokenizer.save_pretrained(folder)",
        )
    _read(folder, _TOKENIZER, uri)
    _check_chat_template(folder, uri, spec)


def _length_field(spec: RunSpec) -> str:
    return f"{'evaluate' if spec.stage == 'Evaluate' else 'training'}.maxLength"


def _check_is_model(folder: Path, uri: str) -> None:
    if (folder / _ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        raise ConfigError(
            "model.uri",
            f"{uri} holds an adapter, not a model",
            "name its base model here; the adapter is evaluated as model.adapterUri, and trained on"
            " when it has been merged (output.export.mergeAdapter)",
        )


def _check_evaluated(config: dict[str, Any], spec: RunSpec) -> None:
    """Holds a model to writing text, with room for the answers asked for."""
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    if any(kind.endswith(_RANKS) for kind in kinds):
        raise ConfigError(
            "model.uri",
            f"{spec.source_uri} is a {kinds[0]}, such as stage Reward makes, which writes no text",
            "name a causal language model; a reward model is measured by `evaluation` of its run",
        )
    settings = spec.require_evaluate()
    context = _context(config)
    if settings.predict is None or context is None:
        return
    room = context - settings.max_length
    if settings.predict.max_new_tokens > room:
        raise ConfigError(
            "evaluate.predict.maxNewTokens",
            f"{settings.predict.max_new_tokens} tokens after prompts of up to"
            f" {settings.max_length} (evaluate.maxLength) are more than the model's context of"
            f" {context}",
            f"use at most {room}" if room > 0 else "use a smaller evaluate.maxLength",
        )


def _check_adapter(folder: Path, spec: RunSpec) -> str:
    """Checks that `folder` holds an adapter that can be put on the model; returns its URI."""
    uri = (spec.model and spec.model.adapter_uri) or ""
    advice = "name the folder of a LoRA adapter, as PEFT's model.save_pretrained(folder) writes it"
    for name in (_ADAPTER_CONFIG, _ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(uri, f"has no {name}", advice)
    config = _read(folder, _ADAPTER_CONFIG, uri)
    if config.get("peft_type") != "LORA":
        raise ConfigError("model.adapterUri", f"{uri} is no LoRA adapter", advice)
    if config.get("task_type") == "SEQ_CLS":
        raise ConfigError(
            "model.adapterUri",
            f"{uri} is the adapter of a reward model, which writes no text",
            "name the adapter of a causal language model",
        )
    if problem := safetensors_problem(folder / _ADAPTER_WEIGHTS):
        raise DataError(f"{uri}, {_ADAPTER_WEIGHTS}", problem, "upload it again")
    return uri


def check_size(
    folder: Path,
    uri: str,
    max_length: int,
    name: str = "the model",
    field: str = "training.maxLength",
) -> None:
    """Checks that the weights in `folder` are whole and that rows of `max_length` tokens fit.

    `name` is what a message calls it, `field` where the length stands in the spec.

    Raises:
        ConfigError: The model's context is shorter.
        DataError: A file is missing or malformed.
    """
    context = _context(_read(folder, "config.json", uri))
    if context is not None and max_length > context:
        raise ConfigError(
            field,
            f"{max_length} tokens are more than {name}'s context of {context}",
            f"use at most {context}",
        )
    _check_weights(folder, uri)


def _read(folder: Path, name: str, uri: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise DataError(
            uri,
            f"has no {name}",
            "name the folder of a Hugging Face model, as model.save_pretrained(folder) writes it",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{uri}, {name}", f"is not JSON ({error})", "upload it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{uri}, {name}", "is no JSON object", "upload it again")
    return content


def _context(config: dict[str, Any]) -> int | None:
    """Returns the model's context in tokens, where it has a fixed one."""
    text_config = config.get("text_config") or config
    # GPT-2 has a name of its own for it.
    context = text_config.get("max_position_embeddings") or text_config.get("n_positions")
    return context if isinstance(context, int) else None


def _check_weights(folder: Path, uri: str) -> None:
    """Checks that all weight files are there and as long as their headers say."""
    present = sorted(folder.glob("*.safetensors"))
    if not present:
        raise DataError(
            uri,
            "has no safetensors weights",
            "save the model there with transformers 5 or later: model.save_pretrained(folder)",
        )
    _check_index(folder, uri)
    for file in present:
        if problem := safetensors_problem(file):
            raise DataError(f"{uri}, {file.name}", problem, "upload it again")


def _check_index(folder: Path, uri: str) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    named = set(_read(folder, index.name, uri).get("weight_map", {}).values())
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise DataError(
            uri,
            f"lacks {len(missing)} of its {len(named)} weight files, such as {missing[0]}",
            "upload the whole folder again",
        )


def safetensors_problem(path: Path) -> str | None:
    """Returns what is wrong with the header of a safetensors file, or with the file's length.

    The header's length in 8 bytes comes first, then the header as JSON, then the tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length or length > _LONGEST_HEADER:
            return f"is cut or damaged: it has {size} bytes"
        try:
            header = json.loads(file.read(length))
            tensors = [value for name, value in header.items() if name != "__metadata__"]
            needed = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        except (ValueError, AttributeError, KeyError, IndexError, TypeError):
            return "has a header that is not that of a safetensors file"
    return None if size == needed else f"is cut or damaged: {size} bytes, not {needed}"


def _check_chat_template(folder: Path, uri: str, spec: RunSpec) -> None:
    needs = [dataset for dataset in spec.datasets if dataset.format in CHAT_FORMATS]
    if spec.chat_template is not None or not needs:
        return
    if any((folder / name).is_file() for name in _CHAT_TEMPLATES):
        return
    config = folder / _TOKENIZER_CONFIG
    if config.is_file() and _read(folder, config.name, uri).get("chat_template"):
        return
    raise ConfigError(
        "model.uri",
        f"the tokenizer of {uri} has no chat template, and {needs[0].uri} has the"
        f" format {needs[0].format}, which is rendered by one",
        f"use an instruction model, set {spec.stage.lower()}.chatTemplate, add a"
        " chat_template.jinja to the model's folder, or write the rows as prompt and completion"
        " (format: PromptCompletion)",
    )
