"""The rules of a model of the API: those on it, and on all that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import Rule


def rules_of(annotation: Any) -> Iterator[Rule]:
    """Yields the rules of a type of the API: on it, and on all that is in it."""
    yield from (mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Rule))
    for argument in get_args(annotation):
        yield from rules_of(argument)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield from annotation.rules
        for hint in get_type_hints(annotation, include_extras=True).values():
            yield from rules_of(hint)
