"""The rules that freeze a run's spec once it has started: one for each field.

A run has started when `status.attempt` is set. From then on every field must stay what it was,
present or absent, unless its model marks it `Mutable`. A rule stands at the root of the object,
since only there are status and spec both in sight, and reports at the field that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmtrain_api.crd.schema import Schema
from llmtrain_api.markers import MUTABLE

_NOT_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.attempt)"
_MESSAGE = (
    "cannot change once the run has started: set it back, or delete this run and apply it again"
    " under another name and output"
)

Path = tuple[str, ...]


def frozen_rules(spec: Schema) -> list[Schema]:
    """Returns the rules for all fields of `spec`, to stand at the root of the object."""
    return [
        {
            "rule": f"{_NOT_STARTED} || ({condition})",
            "message": _MESSAGE,
            "reason": "FieldValueForbidden",
            "fieldPath": "." + ".".join(path),
        }
        for path, condition in _conditions(spec, ("spec",), ())
    ]


def _conditions(block: Schema, at: Path, optional: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Yields each field below `block` with the condition under which it is as it was.

    `optional` are the blocks around it that may be absent: a field in one counts only while the
    block is there before and after, since its coming and going is reported once, at the block.
    """
    for name, field in block["properties"].items():
        path = (*at, name)
        if field.get(MUTABLE):
            continue
        always_there = name in block.get("required", []) or "default" in field
        if "properties" not in field:
            yield path, _where_present(optional, _same(path, field, always_there))
        elif always_there:
            yield from _conditions(field, path, optional)
        else:
            yield path, _where_present(optional, _same_presence(_read("self", path)))
            yield from _conditions(field, path, (*optional, path))


def _same(path: Path, field: Schema, always_there: bool) -> str:
    """Compares a field with what it was; to add or to remove it is a change.

    Optionals (`self.?a == oldSelf.?a`) would say it shorter, but hide the field's bounds from the
    API server's cost estimate, which then refuses the rule.
    """
    place = _read_dynamically("self", path) if _is_free(field) else _read("self", path)
    equal = f"{place} == {_old(place)}"
    if always_there:
        return equal
    return f"{_same_presence(place)} && (!has({place}) || {equal})"


def _same_presence(place: str) -> str:
    return f"has({place}) == has({_old(place)})"


def _read(root: str, path: Path) -> str:
    return ".".join((root, *path))


def _read_dynamically(root: str, path: Path) -> str:
    """Reads a free object past the type check, which knows no type for it."""
    return f"dyn({_read(root, path[:-1])}).{path[-1]}"


def _old(place: str) -> str:
    return place.replace("self", "oldSelf", 1)


def _is_free(field: Schema) -> bool:
    return "x-kubernetes-preserve-unknown-fields" in field.get("additionalProperties", {})


def _where_present(blocks: tuple[Path, ...], condition: str) -> str:
    for block in reversed(blocks):
        place = ".".join(block)
        condition = f"!has(self.{place}) || !has(oldSelf.{place}) || ({condition})"
    return condition
