from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from llmtrain_api.base import ApiModel, FreeFields, Quantity
from llmtrain_api.crd.schema import SchemaError, structural_schema
from llmtrain_api.markers import VALIDATIONS, Atomic, Format, ListMap, Mutable, Rule

Schema = dict[str, Any]


class Inner(ApiModel):
    """An inner block."""

    rules = (Rule("self.size > 1", lambda inner: inner.size > 1, "too small", at="size"),)

    size: int = 3
    """A number."""


class Outer(ApiModel):
    """A model with one field of each kind.

    Its docstring has two paragraphs.
    """

    block: Inner = Inner()
    """A block that is always there."""

    maybe: Inner | None = None
    """A block that may be absent."""

    word: Literal["One"]
    """One word."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A share, and a text that is long enough to stand on more than one line of the file that it
    is written in."""

    whole: float = 1.0
    """A whole number as float."""

    name: Annotated[
        str, Field(max_length=8), Rule("self != 'x'", lambda name: name != "x", "not x")
    ]
    """A name."""

    items: Annotated[list[Inner], Field(max_length=2), ListMap(("size",))] = Field(default=[])
    """A list."""

    words: Annotated[list[str], Field(max_length=2), Atomic()] | None = None
    """A list that may be absent."""

    memory: Quantity | None = None
    """A quantity."""

    free: FreeFields = Field(default={})
    """Free fields."""

    labels: Annotated[dict[str, str], Field(max_length=4)] = Field(default={})
    """A map."""

    time: Annotated[str, Format("date-time")] | None = None
    """A time."""

    switch: Annotated[bool, Mutable()] = False
    """A switch."""


@pytest.fixture(scope="module")
def fields() -> Schema:
    return dict(structural_schema(Outer)["properties"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "word", {"type": "string", "enum": ["One"]}, id="a constant is an enum of one"
        ),
        pytest.param(
            "share",
            {
                "type": "number",
                "format": "double",
                "default": 0.5,
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
            },
            id="exclusive bounds are a bound and a flag",
        ),
        pytest.param(
            "words",
            {
                "type": "array",
                "items": {"type": "string"},
                "maxItems": 2,
                "x-kubernetes-list-type": "atomic",
            },
            id="an optional field has no null",
        ),
        pytest.param(
            "name",
            {
                "type": "string",
                "maxLength": 8,
                VALIDATIONS: [{"rule": "self != 'x'", "message": "not x"}],
            },
            id="a rule on a field is a validation there",
        ),
        pytest.param(
            "free",
            {
                "type": "object",
                "additionalProperties": {
                    "x-kubernetes-preserve-unknown-fields": True,
                    "nullable": True,
                },
                "maxProperties": 64,
            },
            id="free fields are a map of anything",
        ),
        pytest.param(
            "labels",
            {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 4},
            id="an empty default is not written into users' objects",
        ),
        pytest.param(
            "time", {"type": "string", "format": "date-time"}, id="a format is Kubernetes' own"
        ),
        pytest.param(
            "switch",
            {"type": "boolean", "default": False, "x-llmtrain-mutable": True},
            id="our own mark stays for the frozen rules",
        ),
    ],
)
def test_a_field_is_written_as_kubernetes_takes_it(
    fields: Schema, name: str, expected: Schema
) -> None:
    written = dict(fields[name])
    written.pop("description")
    assert written == expected


def test_a_whole_default_is_written_as_the_api_server_stores_it(fields: Schema) -> None:
    assert isinstance(fields["whole"]["default"], int)


def test_a_block_is_written_in_place_with_its_rules_and_an_empty_default(fields: Schema) -> None:
    assert fields["block"] == {
        "description": "A block that is always there.",
        "type": "object",
        "default": {},
        "properties": {
            "size": {
                "description": "A number.",
                "type": "integer",
                "format": "int64",
                "default": 3,
            }
        },
        VALIDATIONS: [{"rule": "self.size > 1", "message": "too small", "fieldPath": ".size"}],
    }


def test_an_optional_block_has_no_default(fields: Schema) -> None:
    assert "default" not in fields["maybe"]
    assert fields["maybe"]["properties"] == fields["block"]["properties"]


def test_a_quantity_is_an_int_or_string_with_its_rule(fields: Schema) -> None:
    quantity = fields["memory"]
    assert quantity["x-kubernetes-int-or-string"] is True
    assert quantity["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert len(quantity[VALIDATIONS]) == 1


def test_a_description_is_one_line(fields: Schema) -> None:
    assert "\n" not in fields["share"]["description"]
    assert "more than one line of the file" in fields["share"]["description"]


def test_required_fields_are_those_without_a_default() -> None:
    assert structural_schema(Outer)["required"] == ["word", "name"]


class Tree(ApiModel):
    """A model that contains itself."""

    branches: list[Tree] | None = None
    """More of the same."""


def test_a_recursive_model_is_refused() -> None:
    with pytest.raises(SchemaError, match="Tree contains itself"):
        structural_schema(Tree)
