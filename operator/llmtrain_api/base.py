"""The base model of the API and the value types that several models share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from llmtrain_api.markers import Format, FreeObject, IntOrString, Pattern


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

    def to_dict(self) -> dict[str, Any]:
        """Returns the model as YAML would hold it: camelCase, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
Quantity = Annotated[int | str, IntOrString(_QUANTITY)]
"""A Kubernetes quantity: `8`, `500m`, `16Gi`."""

S3_URI = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
Uri = Annotated[
    str,
    Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*)$", max_length=1024),
    Pattern(S3_URI),
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

FreeFields = Annotated[dict[str, Any], FreeObject()]
"""An object with fields of the user's own choice."""
