"""Rewrites a pydantic model's JSON schema as a structural schema of Kubernetes.

Each rule below mends one thing that pydantic writes and an API server refuses or misreads. What no
rule mends is found by `structural.py`, so a new kind of field fails loudly.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_REFERENCE = "#/$defs/"
_NULL = {"type": "null"}
_NOT_FOR_KUBERNETES = ("title", "$defs", "propertyNames")
_NUMBER_FORMATS = {"integer": "int64", "number": "double"}


class SchemaError(Exception):
    """A model cannot be written as a structural schema; the message names the place."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """Returns the structural schema of `model`, with our own marks (`x-llmtrain-*`) still in it.

    Raises:
        SchemaError: a model contains itself.
    """
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _rewrite(_inline(whole, whole.get("$defs", {}), ()))


def _inline(node: Schema, models: dict[str, Schema], inside: tuple[str, ...]) -> Schema:
    """Puts each referenced model in place of its `$ref`; what stands beside the `$ref` wins."""
    if "$ref" in node:
        name = node["$ref"].removeprefix(_REFERENCE)
        if name in inside:
            raise SchemaError(f"{name} contains itself: a CRD cannot hold a recursive model")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return _inline({**models[name], **beside}, models, (*inside, name))
    return {key: _inline_value(value, models, inside) for key, value in node.items()}


def _inline_value(value: Any, models: dict[str, Schema], inside: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return _inline(value, models, inside)
    if isinstance(value, list):
        return [_inline_value(item, models, inside) for item in value]
    return value


def _rewrite(node: Schema) -> Schema:
    """Returns one node of the schema, and all below it, in Kubernetes' dialect."""
    node = _without_null(node)
    node = {key: value for key, value in node.items() if key not in _NOT_FOR_KUBERNETES}
    _mend_numbers(node)
    _mend_closed_objects(node)
    if "const" in node:  # A CRD knows no `const`.
        node["enum"] = [node.pop("const")]
    if "description" in node:  # `kubectl explain` wraps by itself.
        node["description"] = " ".join(node["description"].split())
    if "properties" in node:
        node["properties"] = {name: _rewrite(field) for name, field in node["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in node:
            node[key] = _rewrite(node[key])
    _mend_default(node)
    return node


def _without_null(node: Schema) -> Schema:
    """Reads `X | None` as X: to leave a field out is the only way to have none."""
    branches = node.get("anyOf", [])
    if _NULL not in branches:
        return node
    others = [branch for branch in branches if branch != _NULL]
    if len(others) != 1:
        return node
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    return {**others[0], **beside}


def _mend_numbers(node: Schema) -> None:
    """Gives numbers their width, and exclusive bounds the form of OpenAPI 3.0: bound and flag."""
    if node.get("type") in _NUMBER_FORMATS:
        node["format"] = _NUMBER_FORMATS[node["type"]]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            node[bound] = node[exclusive]
            node[exclusive] = True


def _mend_closed_objects(node: Schema) -> None:
    """Drops `additionalProperties: false`: a CRD's objects are closed by pruning."""
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]


def _mend_default(node: Schema) -> None:
    """Keeps defaults of values only; a block's is `{}`, which its fields' own defaults fill."""
    default = node.get("default")
    if isinstance(default, dict) and "properties" in node:
        node["default"] = {}
    elif default is None or default in ([], {}):
        node.pop("default", None)
    elif isinstance(default, float) and default.is_integer():
        node["default"] = int(default)  # As the API server stores it.
