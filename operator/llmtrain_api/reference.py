"""`python -m llmtrain_api.reference [--check] FILE`: writes the API reference as Markdown.

It is made from the same schema as the CRD, so it says what the API server holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmtrain_api import API_VERSION
from llmtrain_api.crd.schema import Schema, structural_schema
from llmtrain_api.exits import EXIT_POLICIES
from llmtrain_api.markers import MUTABLE, VALIDATIONS
from llmtrain_api.references import MAX_NAME_LENGTH
from llmtrain_api.run import RunSpec
from llmtrain_api.schedule import MAX_SCHEDULE_NAME_LENGTH, ScheduleSpec, ScheduleStatus
from llmtrain_api.status import RunStatus

_INTRODUCTION = f"""\
# API reference

Made by `make crds` from `operator/llmtrain_api`: change the models, not this file.
`kubectl explain llmtrainruns.spec --recursive` says the same of the cluster at hand.

An `LLMTrainRun` (`ltr`, `{API_VERSION}`) is one model, trained once. Its name has at most
{MAX_NAME_LENGTH} lower-case letters, digits and `-`, and starts with a letter. Once the run has
started its spec is frozen, but for the fields marked *may change*.

An [`LLMTrainSchedule`](#schedulespec) (`lts`) makes such runs [by the clock](schedules.md). Its
name has at most {MAX_SCHEDULE_NAME_LENGTH} characters.
"""

_BLOCKS = (
    # The heading, and the model below it.
    ("spec", RunSpec),
    ("status", RunStatus),
    ("schedule.spec", ScheduleSpec),
    ("schedule.status", ScheduleStatus),
)
_TOLD_ELSEWHERE = {"schedule.spec.runTemplate.spec": "spec"}
"""A block by its path, and the heading under which it stands already."""


def render() -> str:
    """Returns the reference as Markdown."""
    parts = [_INTRODUCTION]
    for name, model in _BLOCKS:
        parts += [_section(*block) for block in _blocks(structural_schema(model), name)]
    return "\n".join([*parts, _exit_classes()])


def _blocks(block: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yields `block` and all blocks below it, each with its path."""
    yield path, block
    for name, field in block["properties"].items():
        below, suffix = _below(field)
        if "properties" in below and f"{path}.{name}" not in _TOLD_ELSEWHERE:
            yield from _blocks(below, f"{path}.{name}{suffix}")


def _below(field: Schema) -> tuple[Schema, str]:
    """Returns what a field consists of: itself, or the items of a list."""
    return (field["items"], "[]") if field.get("type") == "array" else (field, "")


def _section(path: str, block: Schema) -> str:
    required = block.get("required", [])
    rows = [
        f"| `{name}` | {_type(path, name, field)} | {_default(name, field, required)} |"
        f" {_escape(field['description'])}{' *May change.*' if field.get(MUTABLE) else ''} |"
        for name, field in block["properties"].items()
    ]
    table = ["| field | type | default | description |", "|---|---|---|---|", *rows]
    rules = [f"- {rule}" for rule in _rules(block)]
    held = ["", "What the API server says to anything else:", "", *rules] if rules else []
    return "\n".join([f"## {path}", "", block["description"], "", *table, *held, ""])


def _rules(block: Schema) -> Iterator[str]:
    """Yields the messages of the rules on a block and on the values in it."""
    for rule in block.get(VALIDATIONS, []):
        place = f"`{rule['fieldPath'].lstrip('.')}`: " if "fieldPath" in rule else ""
        yield f"{place}{rule['message']}"
    for name, field in block["properties"].items():
        if "properties" in field:
            continue
        for holder in (field, field.get("additionalProperties", {})):
            for rule in holder.get(VALIDATIONS, []):
                yield f"`{name}`: {rule['message']}"


def _type(path: str, name: str, field: Schema) -> str:
    below, suffix = _below(field)
    if "properties" in below:
        place = _TOLD_ELSEWHERE.get(f"{path}.{name}", f"{path}.{name}{suffix}")
        link = f"[{name}](#{place.lower().translate(str.maketrans('', '', '.[]'))})"
        return f"list of {link}" if suffix else link
    if suffix:
        return f"list of {_value_type(below)}"
    if "additionalProperties" in field:
        value = field["additionalProperties"]
        return f"map of {_value_type(value)}" if _has_type(value) else "any fields"
    return _value_type(field)


def _has_type(field: Schema) -> bool:
    return "type" in field or "x-kubernetes-int-or-string" in field


def _value_type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        rules = str(field.get(VALIDATIONS))
        return "quantity" if "isQuantity" in rules else "integer or string"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("format") == "date-time":
        return "time"
    return str(field["type"]) + _range(field)


def _range(field: Schema) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is None and most is None:
        return ""
    above = "above " if field.get("exclusiveMinimum") else ""
    below = "below " if field.get("exclusiveMaximum") else ""
    if most is None:
        return f", {above or 'at least '}{least}"
    return f", {above}{least} to {below}{most}"


def _default(name: str, field: Schema, required: Sequence[str]) -> str:
    if name in required:
        return "required"
    if "default" not in field or field["default"] == {}:
        return ""
    return f"`{json.dumps(field['default'])}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _exit_classes() -> str:
    head = ["| class | exit code | tried again | counts as a restart | what to do |"]
    rows = [
        f"| `{exit_class.value}` | {policy.code} | {_yes(policy.retry)} | {_yes(policy.counts)} |"
        f" {_escape(policy.hint)} |"
        for exit_class, policy in EXIT_POLICIES.items()
    ]
    text = "Why an attempt ended: `status.attempts[].outcome`, and the reason of the conditions."
    return "\n".join(["## Exit classes", "", text, "", *head, "|---|---|---|---|---|", *rows, ""])


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the reference; with `--check` compares only, and returns 1 if it differs."""
    parser = argparse.ArgumentParser(prog="python -m llmtrain_api.reference", description=__doc__)
    parser.add_argument("file", type=Path, help="the reference, such as docs/api.md")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    arguments = parser.parse_args(argv)
    path: Path = arguments.file
    if not arguments.check:
        path.write_text(render(), encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != render():
        sys.stderr.write(f"{path} is stale: run make crds\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
