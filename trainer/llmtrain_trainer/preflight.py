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


def check_model(folder: Path, spec: RunSpec) -> None:
    """Checks that `folder` holds a model that can be trained as `spec` says.

    Raises:
        ConfigError: The model and the spec do not fit together.
        DataError: A file that a model must have is missing or malformed.
    """
    uri = spec.source_uri
    if spec.model is not None:  # A new model has none of this.
        check_size(folder, uri, spec.require_training().max_length)
    if not (folder / _TOKENIZER).is_file():
        raise DataError(
            uri,
            f"has no {_TOKENIZER}",
            "save the tokenizer there with transformers: tokenizer.save_pretrained(folder)",
        )
    _read(folder, _TOKENIZER, uri)
    _check_chat_template(folder, spec)


def check_size(folder: Path, uri: str, max_length: int, name: str = "the model") -> None:
    """Checks that the weights in `folder` are whole and that rows of `max_length` tokens fit.

    `name` is what a message calls it.

    Raises:
        ConfigError: The model's context is shorter.
        DataError: A file is missing or malformed.
    """
    _check_length(_read(folder, "config.json", uri), name, max_length)
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


def _check_length(config: dict[str, Any], name: str, max_length: int) -> None:
    """Holds `maxLength` against the model's context, where the model has a fixed one."""
    text_config = config.get("text_config") or config
    # GPT-2 has a name of its own for it.
    context = text_config.get("max_position_embeddings") or text_config.get("n_positions")
    if isinstance(context, int) and max_length > context:
        raise ConfigError(
            "training.maxLength",
            f"{max_length} tokens are more than {name}'s context of {context}",
            f"use at most {context}",
        )


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


def _check_chat_template(folder: Path, spec: RunSpec) -> None:
    needs = [dataset for dataset in spec.datasets if dataset.format in CHAT_FORMATS]
    chosen = spec.sft is not None and spec.sft.chat_template is not None
    if chosen or not needs or any((folder / name).is_file() for name in _CHAT_TEMPLATES):
        return
    config = folder / _TOKENIZER_CONFIG
    if config.is_file() and _read(folder, config.name, spec.source_uri).get("chat_template"):
        return
    raise ConfigError(
        "model.uri",
        f"the tokenizer of {spec.source_uri} has no chat template, and {needs[0].uri} has the"
        f" format {needs[0].format}, which is rendered by one",
        "use an instruction model, set sft.chatTemplate, add a chat_template.jinja to the model's"
        " folder, or write the rows as prompt and completion (format: PromptCompletion)",
    )
