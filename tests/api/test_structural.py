from __future__ import annotations

from typing import Any

import pytest

from llmtrain_api.crd.structural import faults
from llmtrain_api.markers import VALIDATIONS

Schema = dict[str, Any]

STRING: Schema = {"type": "string", "maxLength": 8}
ATOMIC: Schema = {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "atomic"}
QUANTITY: Schema = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
}


def block(**fields: Schema) -> Schema:
    described = {name: {"description": "A field.", **field} for name, field in fields.items()}
    return {"type": "object", "properties": described}


def keyed(item: Schema, *keys: str) -> Schema:
    return {
        **ATOMIC,
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
    }


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(STRING, id="a bounded string"),
        pytest.param({"type": "string", "enum": ["A"]}, id="an enum"),
        pytest.param(QUANTITY, id="an int-or-string"),
        pytest.param(block(name=STRING), id="a block"),
        pytest.param({**ATOMIC, "items": STRING}, id="an atomic list"),
        pytest.param(
            keyed({**block(name=STRING), "required": ["name"]}, "name"), id="a list-map by its name"
        ),
        pytest.param(
            {
                "type": "object",
                "maxProperties": 4,
                "additionalProperties": {
                    "x-kubernetes-preserve-unknown-fields": True,
                    "nullable": True,
                },
            },
            id="free fields",
        ),
    ],
)
def test_a_structural_schema_has_no_faults(schema: Schema) -> None:
    assert faults(schema, "spec") == []


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        pytest.param({**STRING, "title": "Name"}, "does not know", id="a key of another dialect"),
        pytest.param({**STRING, "nullable": True}, "does not know", id="a nullable field"),
        pytest.param(
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "does not know",
            id="an object of unknown fields, whose renamed fields CEL does not see",
        ),
        pytest.param({"maxLength": 8}, "type None is not one of", id="no type"),
        pytest.param({"type": "null"}, "type 'null' is not one of", id="a type that is none"),
        pytest.param(
            {**STRING, "format": "duration"}, "format 'duration'", id="a format we do not use"
        ),
        pytest.param(
            {"type": "string", "maxLength": 8, "anyOf": [STRING]}, "not structural", id="a union"
        ),
        pytest.param({**QUANTITY, "type": "string"}, "int-or-string", id="a typed int-or-string"),
        pytest.param(
            {**QUANTITY, "anyOf": [{"type": "string"}]}, "int-or-string", id="half an int-or-string"
        ),
        pytest.param({"type": "object"}, "either properties or", id="an object of nothing"),
        pytest.param(
            {**block(name=STRING), "additionalProperties": STRING, "maxProperties": 2},
            "either properties or",
            id="a block that is a map too",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": True, "maxProperties": 2},
            "mark a free object",
            id="an unmarked free object",
        ),
        pytest.param(
            {**block(name=STRING), "required": ["nome"]},
            "'nome' has no schema",
            id="required, absent",
        ),
        pytest.param(ATOMIC, "one schema for its items", id="a list of anything"),
        pytest.param(
            {"type": "array", "maxItems": 2, "items": STRING},
            "ListMap or Atomic",
            id="a plain list",
        ),
        pytest.param(keyed(block(name=STRING)), "a list-map has keys", id="a list-map by nothing"),
        pytest.param(
            {**ATOMIC, "items": STRING, "x-kubernetes-list-map-keys": ["name"]},
            "a list-map has keys",
            id="an atomic list with keys",
        ),
        pytest.param(
            keyed(block(name=STRING), "name"), "'name' must be required", id="an optional list key"
        ),
        pytest.param(
            {"type": "array", "items": STRING, "x-kubernetes-list-type": "atomic"},
            "maxItems",
            id="an unbounded list",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": STRING},
            "maxProperties",
            id="an unbounded map",
        ),
        pytest.param({"type": "string"}, "maxLength or enum", id="an unbounded string"),
        pytest.param(
            {"type": "integer", "exclusiveMinimum": 0},
            "is a flag",
            id="an exclusive bound as number",
        ),
        pytest.param(
            {"type": "number", "maximum": 0.5}, "cut to a whole", id="a bound that is not whole"
        ),
        pytest.param({**STRING, "pattern": "a(?=b)"}, "RE2", id="a pattern that looks ahead"),
        pytest.param({**STRING, "default": None}, "null in a default", id="null as default"),
        pytest.param(
            {**block(name=STRING), "default": {"name": [None]}}, "null", id="null within a default"
        ),
        pytest.param(
            {**ATOMIC, "items": STRING, "default": []},
            "an empty list as default",
            id="an empty list",
        ),
        pytest.param(
            {"type": "object", "properties": {"name": STRING}},
            "no docstring",
            id="an unexplained field",
        ),
        pytest.param(
            {**STRING, VALIDATIONS: [{"message": "no"}]}, "without a rule", id="a message alone"
        ),
        pytest.param(
            {**STRING, VALIDATIONS: [{"rule": "false"}]}, "has no message", id="a rule alone"
        ),
        pytest.param(
            {**STRING, VALIDATIONS: [{"rule": "false", "message": "a\nb"}]},
            "line break",
            id="a message of two lines",
        ),
    ],
)
def test_a_fault_is_found_with_its_place(schema: Schema, fault: str) -> None:
    described = {"description": "A field.", **schema}
    found = faults({"type": "object", "properties": {"field": described}}, "spec")
    assert all(one.startswith("spec.field: ") for one in found)
    assert any(fault in one for one in found)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        pytest.param({**ATOMIC, "items": {"type": "string"}}, "spec[]: ", id="in a list's items"),
        pytest.param(
            {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string"}},
            "spec{}: ",
            id="in a map's values",
        ),
        pytest.param(block(name={"type": "string"}), "spec.name: ", id="in a block's field"),
    ],
)
def test_a_fault_is_found_below(schema: Schema, place: str) -> None:
    assert [fault[: len(place)] for fault in faults(schema, "spec")] == [place]
