"""The base model of the API and the value types that several models share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from llmtrain_api.markers import Format, FreeObject, IntOrString, Rule, merge


class ApiModel(BaseModel):
    """Base of all that users write and read: camelCase in YAML, a mistyped field is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,  # Neither YAML nor the API server has a number for them.
        use_attribute_docstrings=True,  # The docstrings are what `kubectl explain` prints.
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Rules about more than one field, held here and by the API server alike."""

    @model_validator(mode="after")
    def _hold_the_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = handler(schema)
        definition = handler.resolve_ref_schema(json_schema)
        for rule in cls.rules:
            merge(definition, rule.keys())
        return json_schema

    def to_dict(self) -> dict[str, Any]:
        """Returns the model as YAML would hold it: camelCase, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_QUANTITY = re.compile(
    r"\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?",
    re.ASCII,
)
Quantity = Annotated[
    int | str,
    IntOrString(max_length=64),
    Rule(
        "type(self) == int ? self >= 0 : isQuantity(self) && sign(quantity(self)) >= 0",
        lambda value: (
            value >= 0 if isinstance(value, int) else _QUANTITY.fullmatch(value) is not None
        ),
        "use a quantity of Kubernetes, such as 8, 500m or 16Gi",
    ),
]
"""A Kubernetes quantity: `8`, `500m`, `16Gi`."""

_S3_URI = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?"
Uri = Annotated[
    str,
    Field(max_length=1024),
    Rule(
        f"self.matches('^{_S3_URI}$')",
        lambda value: re.fullmatch(rf"{_S3_URI}|file:///.*", value) is not None,
        "use s3://bucket/path, with a bucket of 3 to 63 lower-case letters, digits, '.' and '-'",
    ),
]
"""A place in object storage: `s3://bucket/path`. The command line also takes `file:///path`."""

Name = Annotated[str, Field(min_length=1, max_length=253)]
"""The name of another object in the run's namespace."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _check_time(text: str) -> str:
    """Holds what the API server holds: a time that it refuses would block a whole status."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("not a time as in RFC 3339, such as 2026-11-21T15:04:05Z")
    datetime.fromisoformat(text)
    return text


Time = Annotated[str, Field(max_length=64), Format("date-time"), AfterValidator(_check_time)]
"""A moment in UTC, RFC 3339, such as `2026-11-21T15:04:05Z`."""

FreeFields = Annotated[dict[str, Any], Field(max_length=64), FreeObject(max_properties=64)]
"""An object with fields of the user's own choice."""
