"""Conversations as data sets hold them: ShareGPT's and OpenAI's, with tools and calls of them.

Both become messages as chat templates take them: `role` and `content`, `tool_calls` whose
arguments are objects, and tools as JSON schemas. What cannot become that is refused with its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmtrain_api.datasets import Dataset
from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data.columns import column, kind, text

Message = dict[str, Any]
Conversation = tuple[list[Message], list[dict[str, Any]] | None]
"""The messages, and the tools that the assistant may call, if any."""

_CALL = "tool_call"
_WRITE_CALLS = 'write calls as {"name": "...", "arguments": {...}}'
_WRITE_PAIRS = "write a list of pairs of strings, [question, answer]"
# These change what a message means; to pass them over would train something else than asked for.
_UNSUPPORTED = ("function_call", "weight")


def conversation(place: str, row: dict[str, Any], dataset: Dataset) -> Conversation:
    """Returns a row of one of the formats `ShareGPT` and `Messages`.

    Raises:
        DataError: The row is malformed; the message names the turn.
    """
    name = dataset.column("messages")
    turns = column(place, row, name)
    if not isinstance(turns, list) or not turns:
        keys = f"`{dataset.column('role')}` and `{dataset.column('content')}`"
        raise DataError(place, f"`{name}` is {kind(turns)}", f"write a list of objects with {keys}")
    speakers = _speakers(dataset)
    messages = [
        _message(f"{place}, {name}[{number}]", turn, dataset, speakers)
        for number, turn in enumerate(turns)
    ]
    if dataset.format == "ShareGPT":
        system = text(place, row, dataset.column("system"), required=False)
        if system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
    _check_order(place, messages)
    return messages, _tools(place, row, dataset.column("tools"))


def history(place: str, row: dict[str, Any], name: str) -> list[Message]:
    """Returns the turns before Alpaca's instruction: a list of pairs of question and answer.

    Raises:
        DataError: It is none.
    """
    pairs = row.get(name)
    if pairs is None:
        return []
    if not isinstance(pairs, list):
        raise DataError(place, f"`{name}` is {kind(pairs)}", _WRITE_PAIRS)
    messages = []
    for number, pair in enumerate(pairs):
        where = f"{place}, {name}[{number}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(where, f"is {kind(pair)}, not a pair", _WRITE_PAIRS)
        sides = dict(zip(("question", "answer"), pair, strict=True))
        messages.append({"role": "user", "content": text(where, sides, "question")})
        messages.append({"role": "assistant", "content": text(where, sides, "answer")})
    return messages


def _speakers(dataset: Dataset) -> dict[str, str]:
    """Returns the role of each name that a turn's speaker may have."""
    roles = ["system", "user", "assistant", "tool"]
    if dataset.format == "ShareGPT":
        roles.append(_CALL)
    speakers = {dataset.role(role): role for role in roles}
    if len(speakers) < len(roles):
        names = ", ".join(dataset.role(role) for role in roles)
        raise ConfigError(
            "datasets.roles",
            f"two roles of {dataset.uri} have one name ({names})",
            "give each role a name of its own",
        )
    return speakers


def _message(place: str, turn: object, dataset: Dataset, speakers: Mapping[str, str]) -> Message:
    """Returns one turn as a message; what it holds besides stays, unless it is null."""
    role_name, content_name = dataset.column("role"), dataset.column("content")
    if not isinstance(turn, dict):
        raise DataError(
            place, f"is {kind(turn)}", f"write an object with `{role_name}` and `{content_name}`"
        )
    said = text(place, turn, role_name)
    role = speakers.get(said)
    if role is None:
        raise DataError(
            place,
            f"the role is '{said}'",
            f"use one of {', '.join(speakers)}, or name it in the roles of the data set",
        )
    for key in _UNSUPPORTED:
        if turn.get(key) is not None:
            raise DataError(place, f"has `{key}`, which is not supported", f"remove `{key}`")
    if role == _CALL:
        calls = _calls(place, content_name, text(place, turn, content_name))
        return {"role": "assistant", "content": "", "tool_calls": calls}
    # A turn may have keys of the names that a message has, beside the columns they are read from.
    taken = (role_name, content_name, "role", "content", "tool_calls")
    others = {key: value for key, value in turn.items() if value is not None and key not in taken}
    calls = turn.get("tool_calls") or []
    if calls and role != "assistant":
        raise DataError(place, "has `tool_calls`", "let the assistant call tools")
    content = text(place, turn, content_name, required=not calls)
    message = {"role": role, "content": content, **others}
    return {**message, "tool_calls": _calls(place, "tool_calls", calls)} if calls else message


def _calls(place: str, name: str, given: object) -> list[dict[str, Any]]:
    """Returns calls of tools, given as a list, one object, or either as JSON."""
    calls = _from_json(place, name, given)
    calls = calls if isinstance(calls, list) else [calls]
    if not calls:
        raise DataError(place, f"`{name}` holds no call", _WRITE_CALLS)
    return [_call(place, name, call) for call in calls]


def _call(place: str, name: str, call: object) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(
            place,
            f"`{name}` holds {kind(function)} without the name of a tool",
            _WRITE_CALLS,
        )
    arguments = _from_json(place, name, function.get("arguments", {}))
    if not isinstance(arguments, dict):
        raise DataError(
            place, f"the arguments in `{name}` are {kind(arguments)}", "write an object"
        )
    named = {"id": call["id"]} if isinstance(call, dict) and call.get("id") else {}
    return {
        **named,
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _tools(place: str, row: dict[str, Any], name: str) -> list[dict[str, Any]] | None:
    """Returns the tools of a row as JSON schemas; a schema may stand alone or as a `function`."""
    if not row.get(name):
        return None
    tools = _from_json(place, name, row[name])
    if not tools:
        return None
    if not isinstance(tools, list):
        raise DataError(place, f"`{name}` is {kind(tools)}", "write a list of JSON schemas")
    found = []
    for number, tool in enumerate(tools):
        where = f"{place}, {name}[{number}]"
        schema = tool.get("function", tool) if isinstance(tool, dict) else tool
        if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
            raise DataError(
                where,
                f"is {kind(schema)} without a name",
                'write {"name": "...", "description": "...", "parameters": {...}}',
            )
        found.append({"type": "function", "function": schema})
    return found


def _from_json(place: str, name: str, value: object) -> Any:
    """Returns what a string of JSON says, and anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(place, f"`{name}` is not JSON ({error})", "write it as JSON") from error


def _check_order(place: str, messages: list[Message]) -> None:
    """Holds [system,] user, assistant, user, assistant ...: anything else trains nonsense.

    After calls of tools come their answers, and then the assistant again.
    """
    roles = [message["role"] for message in messages]
    turns = messages[1:] if roles[0] == "system" else messages
    expected = {"user"}
    for turn in turns:
        if turn["role"] not in expected:
            break
        expected = _next_roles(turn)
    else:
        if turns and turns[-1]["role"] == "assistant":
            return
    raise DataError(
        place,
        f"the roles are {', '.join(roles[:8])}{', ...' if len(roles) > 8 else ''}",
        "begin with an optional system message, then let user and assistant take turns,"
        " the assistant last; what a tool answers follows the assistant's call of it",
    )


def _next_roles(turn: Message) -> set[str]:
    if turn["role"] == "tool":
        return {"tool", "assistant"}
    if turn["role"] == "user":
        return {"assistant"}
    return {"tool"} if turn.get("tool_calls") else {"user"}
