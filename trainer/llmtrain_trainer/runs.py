"""Reads what the launcher is to run: a `run.json`, or an LLMTrainRun as a user wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from llmtrain_api import API_VERSION
from llmtrain_api.runfile import RunFile


def read_run(path: Path) -> RunFile:
    """Returns the run in `path`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is neither a run file nor one LLMTrainRun, or a field of it is wrong.
    """
    text = path.read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)  # JSON is YAML.
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("not an object: give a run.json or the manifest of one LLMTrainRun")
    try:
        run = _run_of(content)
    except ValidationError as error:
        raise ValueError("; ".join(_in_words(error))) from error
    for field, named in run.spec.references.items():
        raise ValueError(
            f"spec.{field}.fromRun: what run {named.name} wrote is known to the operator of a"
            f" cluster only: set {field}.uri to the folder model/ under its output.uri"
        )
    return run


def _in_words(error: ValidationError) -> list[str]:
    """Returns what is wrong with each field, as `spec.training.maxSteps: ...`."""
    return [
        ": ".join(
            part for part in (".".join(str(key) for key in fault["loc"]), fault["msg"]) if part
        )
        for fault in error.errors(include_url=False)
    ]


def _run_of(content: dict[str, Any]) -> RunFile:
    if "kind" not in content:
        return RunFile.model_validate(content)
    if content.get("apiVersion") != API_VERSION or content["kind"] != "LLMTrainRun":
        raise ValueError(f"not an LLMTrainRun of {API_VERSION}, but a {content['kind']}")
    metadata = content.get("metadata") or {}
    return RunFile.model_validate(
        {
            "name": metadata.get("name"),
            "namespace": metadata.get("namespace", ""),
            "spec": content.get("spec"),
        }
    )
