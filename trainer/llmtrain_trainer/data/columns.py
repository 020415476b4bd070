"""One row's columns, and in words what is wrong with them."""

from __future__ import annotations

from typing import Any

from llmtrain_api.errors import DataError


def column(place: str, row: dict[str, Any], name: str) -> Any:
    """Returns a column that a row must have.

    Raises:
        DataError: It is not there; the message names those that are.
    """
    if name not in row:
        have = ", ".join(f"`{key}`" for key in sorted(row)[:8]) or "nothing"
        raise DataError(
            place, f"has no `{name}` (it has {have})", "add it, or correct the dataset's format"
        )
    return row[name]


def text(place: str, row: dict[str, Any], name: str, *, required: bool = True) -> str:
    """Returns a text column; one that is not required may be absent or null.

    Raises:
        DataError: It is missing, or no text.
    """
    if not required and row.get(name) is None:
        return ""
    value = column(place, row, name)
    if not isinstance(value, str):
        raise DataError(place, f"`{name}` is {kind(value)}", f"make `{name}` a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            place, f"`{name}` holds half of a surrogate pair ({error})", "mend its \\u escapes"
        ) from error
    return value


def kind(value: object) -> str:
    """Returns what a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    names = {str: "a string", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")
