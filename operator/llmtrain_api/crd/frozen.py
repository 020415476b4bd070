"""The rules that freeze a run's spec once it has started: one for each field of `spec` itself.

A run has started when `status.attempt` is set. From then on every field must stay what it was,
present or absent, unless its model marks it `Mutable`. A rule stands at the root of the object,
since only there are status and spec both in sight, and reports at the block that it is about; its
message names the field in the block.

The API server evaluates every rule at every write, those of a status too, and pays for each step
of a path such as `self.spec.training`. So a rule compares a block as a whole, looks at the status
last, and searches for the field that differs only when there is one.
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
        _rule(("spec", name), field, _always_there(name, spec))
        for name, field in spec["properties"].items()
        if not _is_mutable(field)
    ]


def _rule(path: Path, field: Schema, always_there: bool) -> Schema:
    rule: Schema = {
        "rule": f"({_same(path, field, always_there)}) || {_NOT_STARTED}",
        "message": _MESSAGE,
        "reason": "FieldValueForbidden",
        "fieldPath": "." + ".".join(path),
    }
    if "properties" in field:
        rule["messageExpression"] = _message(path, field, always_there)
    return rule


def _same(path: Path, field: Schema, always_there: bool) -> str:
    """Returns the condition under which a field is as it was; to add or remove it is a change.

    Optionals (`self.?a == oldSelf.?a`) would say it shorter, but hide the field's bounds from the
    API server's cost estimate, which then refuses the rule.
    """
    place = _read(path, field)
    equal = f"{place} == {_old(place)}"
    if _holds_mutable(field):
        equal = " && ".join(
            f"({_same((*path, name), inner, _always_there(name, field))})"
            for name, inner in field["properties"].items()
            if not _is_mutable(inner)
        )
    if always_there:
        return equal
    return f"has({place}) ? has({_old(place)}) && {equal} : !has({_old(place)})"


def _message(path: Path, block: Schema, always_there: bool) -> str:
    """Returns the message as an expression that puts the first field that changed before it.

    Nothing is put before it where the block as a whole came or went. The API server bounds the
    text that comes out (5 KiB), not the expression.
    """
    chain = ""
    for changed, condition in _changes(path, block, always_there):
        name = ".".join(changed[len(path) :])
        chain += f"{condition} ? '{name and name + ' '}' : "
    return f"({chain}'') + '{_MESSAGE}'"


def _changes(
    path: Path, field: Schema, always_there: bool, inside: tuple[str, ...] = ()
) -> Iterator[tuple[Path, str]]:
    """Yields each field from `path` down with the condition under which it is not as it was.

    `inside` says that the optional blocks around it are there; that one of them came or went is
    yielded before what is in it.
    """
    if _is_mutable(field):
        return
    if "properties" not in field:
        yield path, " && ".join((*inside, f"!({_same(path, field, always_there)})"))
        return
    if not always_there:
        there = f"has({_read(path, field)})"
        yield path, " && ".join((*inside, f"{there} != {_old(there)}"))
        inside = (*inside, there)
    for name, inner in field["properties"].items():
        yield from _changes((*path, name), inner, _always_there(name, field), inside)


def _read(path: Path, field: Schema) -> str:
    """Returns the place of a field; of a free object past the type check, which has none for it."""
    if "x-kubernetes-preserve-unknown-fields" in field.get("additionalProperties", {}):
        return f"dyn(self.{'.'.join(path[:-1])}).{path[-1]}"
    return f"self.{'.'.join(path)}"


def _old(place: str) -> str:
    return place.replace("self", "oldSelf", 1)


def _always_there(name: str, block: Schema) -> bool:
    return name in block.get("required", []) or "default" in block["properties"][name]


def _is_mutable(field: Schema) -> bool:
    """Tells whether nothing in a field is frozen."""
    inner = field.get("properties", {}).values()
    return bool(field.get(MUTABLE)) or (bool(inner) and all(map(_is_mutable, inner)))


def _holds_mutable(field: Schema) -> bool:
    inner = field.get("properties", {}).values()
    return any(_is_mutable(one) or _holds_mutable(one) for one in inner)
