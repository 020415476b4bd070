"""Marks that a model carries for the CRD: rules, list types and the like.

A mark stands in `Annotated[...]`; pydantic merges what it says into the field's JSON schema. All
but `Rule` leave pydantic's own validation as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"
MUTABLE = "x-llmtrain-mutable"
"""Marks a field that may change after the run has started; removed from the published CRD."""


class _Mark:
    """Base of the marks: merges `keys()` into the JSON schema of the annotated type."""

    def keys(self) -> dict[str, Any]:
        """Returns the keys to merge; a list of validations is appended to."""
        return {}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = handler(schema)
        if "$ref" in json_schema:
            json_schema = dict(handler.resolve_ref_schema(json_schema))
        return merge(json_schema, self.keys())


def merge(json_schema: JsonSchemaValue, keys: dict[str, Any]) -> JsonSchemaValue:
    """Puts `keys` into `json_schema`; validations are added to those already there."""
    for key, value in keys.items():
        json_schema[key] = [*json_schema.get(key, []), *value] if key == VALIDATIONS else value
    return json_schema


@dataclass(frozen=True)
class Rule(_Mark):
    """A rule that the API server holds in CEL and pydantic in Python, with the same message.

    On a field it stands in `Annotated[...]` and is about the value; on a model it stands in `rules`
    and is about the object. The message says what is wrong and the way out; the field's name comes
    before it on either side.
    """

    cel: str
    """The rule in the Common Expression Language; `self` is the value or the object."""

    holds: Callable[[Any], bool] = field(repr=False)
    """The same rule in Python."""

    message: str
    """What a user reads."""

    at: str = ""
    """Field of the object that the message is about, such as `lora`; empty for the object."""

    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"] = (
        "FieldValueInvalid"
    )
    """How the API server introduces the message: `Invalid value`, `Forbidden`, `Required value`."""

    template: str = ""
    """A message with the values at hand, in place of `message`: `%d` and `%s` are filled in."""

    values_cel: str = ""
    """The values for `template` in CEL, separated by commas."""

    values: Callable[[Any], tuple[Any, ...]] = field(default=lambda value: (), repr=False)
    """The same values in Python."""

    def keys(self) -> dict[str, Any]:
        """Returns the rule as one entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        if self.template:
            entry["messageExpression"] = f"'{self.template}'.format([{self.values_cel}])"
        if self.at:
            entry["fieldPath"] = f".{self.at}"
        if self.reason != "FieldValueInvalid":
            entry["reason"] = self.reason
        return {VALIDATIONS: [entry]}

    def check(self, value: Any) -> Any:
        """Returns `value` as it is.

        Raises:
            PydanticCustomError: the rule does not hold; pydantic makes a ValidationError of it.
        """
        if self.holds(value):
            return value
        message = self.template % self.values(value) if self.template else self.message
        text = f"{self.at}: {message}" if self.at else message
        raise PydanticCustomError("rule", "{text}", {"text": text})

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class Mutable(_Mark):
    """The field may change while the run is going on; all others are frozen once it started."""

    def keys(self) -> dict[str, Any]:
        """Returns the mark that the CRD generator reads and drops."""
        return {MUTABLE: True}


@dataclass(frozen=True)
class ListMap(_Mark):
    """A list that server-side apply merges by these keys of its items; it has no order."""

    by: tuple[str, ...]

    def keys(self) -> dict[str, Any]:
        """Returns the list type and its keys."""
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.by)}

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._refuse_twins, handler(source))

    def _refuse_twins(self, items: list[Any]) -> list[Any]:
        """Holds what the API server holds: no two items with the same keys."""
        seen = [tuple(getattr(item, key) for key in self.by) for item in items]
        for keys in seen:
            if seen.count(keys) > 1:
                twin = ", ".join(map(str, keys))
                raise PydanticCustomError("duplicate", "{twin} stands twice", {"twin": twin})
        return items


@dataclass(frozen=True)
class Atomic(_Mark):
    """A list that server-side apply replaces as a whole; its order counts."""

    def keys(self) -> dict[str, Any]:
        """Returns the list type."""
        return {"x-kubernetes-list-type": "atomic"}


@dataclass(frozen=True)
class Format(_Mark):
    """A format that Kubernetes knows, such as `date-time`."""

    name: str

    def keys(self) -> dict[str, Any]:
        """Returns the format."""
        return {"format": self.name}


@dataclass(frozen=True)
class _Replace:
    """Base of the marks that stand for a whole schema."""

    def schema(self) -> dict[str, Any]:
        """Returns the schema."""
        return {}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return self.schema()


@dataclass(frozen=True)
class IntOrString(_Replace):
    """A whole number or a string, such as a quantity (`8`, `500m`, `1Gi`)."""

    max_length: int

    def schema(self) -> dict[str, Any]:
        """Returns the only union that a structural schema may hold."""
        return {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": self.max_length,
        }


@dataclass(frozen=True)
class FreeObject(_Replace):
    """An object whose fields are not listed here; they are checked where they are used."""

    max_properties: int

    def schema(self) -> dict[str, Any]:
        """Returns a map that keeps whatever its values are.

        Not `type: object` with `preserve-unknown-fields`: of two such objects with as many fields
        under other names CEL says that they are equal (Kubernetes 1.35), so a change would pass.
        """
        return {
            "type": "object",
            "additionalProperties": {
                "x-kubernetes-preserve-unknown-fields": True,
                "nullable": True,
            },
            "maxProperties": self.max_properties,
        }
