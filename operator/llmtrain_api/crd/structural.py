"""Refuses a schema that an API server would refuse, or that we decided against.

Fail-closed: a key that is not listed here is a fault, so nothing slips through unread. The first
table is Kubernetes' own rules for structural schemas, the second is ours: every list says how
server-side apply merges it, and everything is bounded, since the API server computes the cost of
CEL rules from the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmtrain_api.crd.schema import Schema
from llmtrain_api.markers import VALIDATIONS

_KEYS = {
    *("description", "type", "format", "default", "enum", "required", "properties", "items"),
    *("additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties"),
    *("maxProperties", "anyOf", "x-kubernetes-int-or-string", "x-kubernetes-list-type"),
    *("x-kubernetes-list-map-keys", VALIDATIONS),
}
_TYPES = {"array", "boolean", "integer", "number", "object", "string"}
_FORMATS = {"date-time", "double", "int64"}
_FREE_VALUE = {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_LIST_TYPES = {"atomic", "map"}
_NOT_IN_RE2 = ("(?=", "(?!", "(?<", "(?P=", "(?>", "\\Z", "\\1", "*+", "++", "?+")


def faults(schema: Schema, path: str) -> list[str]:
    """Returns what is wrong with `schema` and all below it, each with its place; empty if nothing.

    `path` names the place of `schema` itself, such as `spec`.
    """
    if schema == _FREE_VALUE:
        return []
    found = [f"{path}: {fault}" for rule in _RULES for fault in rule(schema)]
    for name, field in schema.get("properties", {}).items():
        found += faults(field, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            found += faults(schema[key], path + suffix)
    return found


def _keys(schema: Schema) -> Iterator[str]:
    if unknown := sorted(set(schema) - _KEYS):
        yield f"a CRD does not know, or we do not use, {', '.join(unknown)}"


def _type(schema: Schema) -> Iterator[str]:
    if schema.get("x-kubernetes-int-or-string"):
        if "type" in schema or schema.get("anyOf") != _INT_OR_STRING:
            yield "an int-or-string has no type but anyOf integer, string"
        return
    if "anyOf" in schema:
        yield "a union is not structural: use optional fields and a CEL rule"
    if schema.get("type") not in _TYPES:
        yield f"type {schema.get('type')!r} is not one of {', '.join(sorted(_TYPES))}"
    if schema.get("format", "int64") not in _FORMATS:
        yield f"format {schema['format']!r} is not one of {', '.join(sorted(_FORMATS))}"


def _object(schema: Schema) -> Iterator[str]:
    if schema.get("type") != "object":
        return
    if ("properties" in schema) == ("additionalProperties" in schema):
        yield "an object has either properties or additionalProperties"
    if not isinstance(schema.get("additionalProperties", {}), dict):
        yield "additionalProperties must be a schema: mark a free object as FreeObject"
    for name in schema.get("required", []):
        if name not in schema.get("properties", {}):
            yield f"required field {name!r} has no schema"


def _list(schema: Schema) -> Iterator[str]:
    if schema.get("type") != "array":
        return
    if not isinstance(schema.get("items"), dict):
        yield "a list needs one schema for its items"
        return
    if schema.get("x-kubernetes-list-type") not in _LIST_TYPES:
        yield "a list is marked ListMap or Atomic, for server-side apply"
    item = schema["items"]
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if (schema.get("x-kubernetes-list-type") == "map") != bool(keys):
        yield "a list-map has keys, and no other list has"
    for key in keys:
        has_default = "default" in item.get("properties", {}).get(key, {})
        if key not in item.get("required", []) and not has_default:
            yield f"list-map key {key!r} must be required"


def _bounds(schema: Schema) -> Iterator[str]:
    if schema.get("type") == "array" and "maxItems" not in schema:
        yield "a list needs maxItems: CEL cost is computed from it"
    if "additionalProperties" in schema and "maxProperties" not in schema:
        yield "a map needs maxProperties: CEL cost is computed from it"
    bounded = "maxLength" in schema or "enum" in schema
    if schema.get("type") == "string" and not bounded:
        yield "a string needs maxLength or enum: CEL cost is computed from it"
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        if key in schema and schema[key] is not True:
            yield f"{key} is a flag beside the bound, not a number"
    for key in ("minimum", "maximum"):
        if schema.get(key, 0) % 1:
            yield f"{key} {schema[key]} is cut to a whole number for whole values: use a rule"


def _pattern(schema: Schema) -> Iterator[str]:
    for part in _NOT_IN_RE2:
        if part in schema.get("pattern", ""):
            yield f"pattern {schema['pattern']!r} holds {part}, which RE2 does not know"


def _default(schema: Schema) -> Iterator[str]:
    if "default" in schema and _holds_null(schema["default"]):
        yield "null in a default"
    if schema.get("default") in ([], ()):
        yield "an empty list as default is written into users' objects"


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_null, value.values()))
    if isinstance(value, list):
        return any(map(_holds_null, value))
    return value is None


def _description(schema: Schema) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        if not field.get("description", "").strip():
            yield f"field {name!r} has no docstring: `kubectl explain` would be silent about it"


def _validations(schema: Schema) -> Iterator[str]:
    for rule in schema.get(VALIDATIONS, []):
        if not rule.get("rule"):
            yield "a validation without a rule"
        if not rule.get("message") and not rule.get("messageExpression"):
            yield f"rule {rule.get('rule')!r} has no message: users would read the rule itself"
        if "\n" in rule.get("message", "") + rule.get("rule", ""):
            yield f"rule {rule.get('rule')!r} or its message has a line break"


_RULES = (_keys, _type, _object, _list, _bounds, _pattern, _default, _description, _validations)
