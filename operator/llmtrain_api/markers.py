"""Marks that a model carries for the CRD only: CEL rules, list types and the like.

A mark stands in `Annotated[...]`; pydantic merges what it says into the field's JSON schema.
Nothing here changes how pydantic itself validates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

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
        for key, value in self.keys().items():
            json_schema[key] = [*json_schema.get(key, []), *value] if key == VALIDATIONS else value
        return json_schema


@dataclass(frozen=True)
class CEL(_Mark):
    """A rule in the Common Expression Language that the API server checks."""

    rule: str
    message: str

    def keys(self) -> dict[str, Any]:
        """Returns the rule as one entry of `x-kubernetes-validations`."""
        return {VALIDATIONS: [{"rule": self.rule, "message": self.message}]}


@dataclass(frozen=True)
class Mutable(_Mark):
    """The field may change while the run is going on; all others are frozen once it started."""

    def keys(self) -> dict[str, Any]:
        """Returns the mark that the CRD generator reads and drops."""
        return {MUTABLE: True}


@dataclass(frozen=True)
class ListMap(_Mark):
    """A list that server-side apply merges by these keys of its items."""

    by: tuple[str, ...]

    def keys(self) -> dict[str, Any]:
        """Returns the list type and its keys."""
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.by)}


@dataclass(frozen=True)
class Atomic(_Mark):
    """A list that server-side apply replaces as a whole."""

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
class Pattern(_Mark):
    """A pattern that only the API server holds; the command line admits more (`file://`)."""

    pattern: str

    def keys(self) -> dict[str, Any]:
        """Returns the pattern."""
        return {"pattern": self.pattern}


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
    """A number or a string, such as a quantity (`8`, `500m`, `1Gi`)."""

    pattern: str

    def schema(self) -> dict[str, Any]:
        """Returns the only union that a structural schema may hold."""
        return {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": self.pattern,
        }


@dataclass(frozen=True)
class FreeObject(_Replace):
    """An object whose fields are not listed here; they are checked where they are used."""

    def schema(self) -> dict[str, Any]:
        """Returns an object schema that keeps unknown fields."""
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
