"""Messages and turns in the words of each format, for the tests of conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jobs

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import rows
from llmtrain_trainer.data.rows import Content

URI = "s3://data/rows.jsonl"
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}


def system(text: str) -> dict[str, Any]:
    """Returns a message of the system."""
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    """Returns a message of the user."""
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> dict[str, Any]:
    """Returns a message of the assistant."""
    return {"role": "assistant", "content": text, **more}


def tool(text: str) -> dict[str, Any]:
    """Returns what a tool said."""
    return {"role": "tool", "content": text}


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    """Returns turns as ShareGPT writes them."""
    return [{"from": name, "value": text} for name, text in pairs]


def read(folder: Path, row: dict[str, Any], format_: str, **changes: Any) -> Content:
    """Returns the one row of a data set of that format, as it is read."""
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row))
    dataset = {"uri": URI, "format": format_, **changes}
    spec = RunSpec.model_validate(jobs.small_spec({"datasets": [dataset]}))
    (only,) = rows.read([jobs.input_file(path, URI)], spec, 0)
    return only.content
