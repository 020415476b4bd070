"""Reads the rows of a run's datasets and says exactly where one of them is wrong.

Imports neither torch nor a tokenizer: the launcher checks all data before a gang of processes
starts, and the training processes read the same rows the same way.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmtrain_api.datasets import CONVERSATIONS, Dataset
from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data.columns import column, kind, text
from llmtrain_trainer.data.conversations import conversation, history
from llmtrain_trainer.data.files import read_rows
from llmtrain_trainer.workdir import InputFile

Message = dict[str, Any]
Words = str | list[Message]
"""Plain text, or messages that the model's chat template renders."""

CHAT_FORMATS = ("Alpaca", "ShareGPT", "Messages")
"""The formats that are rendered by the model's chat template."""

_OPTIONAL = ("input", "system", "history")  # Columns that a row may do without.
_OF_TURNS = ("role", "content")  # Columns that are keys of a conversation's turns.
_ROLES = ("system", "user", "assistant")
# These change what a message means; to pass them over would train something else than asked for.
_UNSUPPORTED = ("tool_calls", "function_call", "weight")


@dataclass(frozen=True)
class Chat:
    """A conversation, to be rendered by the model's chat template."""

    messages: list[Message]
    tools: list[Any] | None = None
    """JSON schemas of the tools that the assistant may call."""


@dataclass(frozen=True)
class Completion:
    """A prompt and what follows it, as plain text."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse answer: all of them texts, or all of them messages."""

    prompt: Words
    chosen: Words
    rejected: Words

    @property
    def answers(self) -> list[Words]:
        """The answers, the better one first."""
        return [self.chosen, self.rejected]


@dataclass(frozen=True)
class Judged:
    """A prompt with one answer that is good or bad: both texts, or both messages."""

    prompt: Words
    completion: Words
    good: bool

    @property
    def answers(self) -> list[Words]:
        """The answer, as a list like that of a pair."""
        return [self.completion]


Content = Chat | Completion | Pair | Judged


@dataclass(frozen=True)
class Row:
    """One row: where it stands, whether it is held out for evaluation, and what it says."""

    place: str
    held_out: bool
    content: Content


class _Read(Protocol):
    """A row, or a document."""

    @property
    def held_out(self) -> bool: ...


def check(
    files: Sequence[InputFile],
    spec: RunSpec,
    reader: Callable[[Sequence[InputFile], RunSpec, int], Iterable[_Read]] | None = None,
) -> None:
    """Reads all rows of `files` and drops them.

    Args:
        files: The downloaded objects, in the order of `spec.datasets`.
        spec: The run's spec.
        reader: How the rows of a dataset are read, given its index. Default: `read`.

    Raises:
        ConfigError: A file's name or `evaluation.fraction` does not work.
        DataError: A row is malformed, or a file is empty; the message names URI and line.
    """
    kept = held_out = 0
    for index in range(len(files)):
        for row in (reader or read)(files, spec, index):
            kept += not row.held_out
            held_out += row.held_out
    if spec.evaluation is not None and not (kept and held_out):
        raise ConfigError(
            "evaluation.fraction",
            f"of {kept + held_out} rows {held_out} would be held out and {kept} trained on",
            "choose a fraction that leaves rows on both sides, or remove evaluation",
        )


def read(files: Sequence[InputFile], spec: RunSpec, index: int) -> Iterator[Row]:
    """Yields the rows of dataset `index`, in the order of its file.

    Raises:
        ConfigError: The object's name does not say how it reads.
        DataError: A row is malformed, or there is none, or none has a column that `columns` names.
    """
    file, dataset = files[index], spec.datasets[index]
    unseen = _columns_of_rows(dataset)
    count = 0
    for place, raw in itertools.islice(read_rows(file, index), dataset.max_samples):
        count += 1
        row = require_object(place, raw)
        unseen = {name: theirs for name, theirs in unseen.items() if theirs not in row}
        yield Row(place, falls_out(place, row, spec, row), _content(place, row, dataset))
    if not count:
        raise no_rows(file)
    for name, theirs in unseen.items():
        raise DataError(
            file.uri,
            f"none of the {count} rows read has `{theirs}`",
            f"correct columns.{name} of the data set, or remove it",
        )


def _columns_of_rows(dataset: Dataset) -> dict[str, str]:
    """Returns what `columns` names of a row, by the format's name for it."""
    chosen = dataset.columns.renamed() if dataset.columns is not None else {}
    return {name: theirs for name, theirs in chosen.items() if name not in _OF_TURNS}


def _content(place: str, row: dict[str, Any], dataset: Dataset) -> Content:
    """Returns what a row says."""
    if dataset.format in CONVERSATIONS:
        return Chat(*conversation(place, row, dataset))
    return _PARSERS[dataset.format](place, renamed(place, row, dataset))


def renamed(place: str, row: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns a row with its columns called as the format calls them.

    Raises:
        DataError: A column that `columns` names, and that every row must have, is not there.
    """
    if dataset.columns is None:
        return row
    chosen = dataset.columns.renamed()
    for name, theirs in chosen.items():
        if theirs not in row and name not in _OPTIONAL:
            have = ", ".join(f"`{key}`" for key in sorted(row)[:8]) or "nothing"
            raise DataError(
                place,
                f"has no `{theirs}` (it has {have})",
                f"add it, or correct columns.{name} of the data set",
            )
    ours = {name: row[theirs] for name, theirs in chosen.items() if theirs in row}
    return {**{name: value for name, value in row.items() if name not in chosen}, **ours}


def falls_out(place: str, row: dict[str, Any], spec: RunSpec, content: dict[str, Any]) -> bool:
    """Returns whether a row is held out: by its content, or by the column of its group.

    Args:
        place: Where it stands.
        row: The row as it was read.
        spec: The run's spec.
        content: What counts of the row where it has no group.

    Raises:
        DataError: Rows are grouped, and this one has no group.
    """
    evaluation = spec.evaluation
    if evaluation is None:
        return False
    column = evaluation.group_by
    if column is None:
        return is_held_out(content, evaluation.fraction)
    if row.get(column) is None:
        raise DataError(
            place,
            f"has no `{column}`, by which rows are held out together",
            "add it to every row, or correct evaluation.groupBy",
        )
    return is_held_out({column: row[column]}, evaluation.fraction)


def is_held_out(row: dict[str, Any], fraction: float) -> bool:
    """Returns whether a row belongs to the held-out share: a function of its content alone."""
    # Columnar files hold more kinds of values than JSON; `str` tells those apart, too.
    content = json.dumps(row, sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def require_object(place: str, raw: object) -> dict[str, Any]:
    """Returns a row as it is.

    Raises:
        DataError: It is no JSON object.
    """
    if not isinstance(raw, dict):
        raise DataError(place, f"is {kind(raw)}", "write one JSON object per row")
    return raw


def no_rows(file: InputFile) -> DataError:
    """Returns the error of an object without rows."""
    return DataError(file.uri, "holds no rows", "upload rows, or remove it from spec.datasets")


def _alpaca(place: str, row: dict[str, Any]) -> Chat:
    """Returns an Alpaca row as a conversation, whose last question is the instruction."""
    question = text(place, row, "instruction")
    extra = text(place, row, "input", required=False)
    system = text(place, row, "system", required=False)
    messages = [{"role": "system", "content": system}] if system else []
    messages += history(place, row, "history")
    messages.append({"role": "user", "content": f"{question}\n\n{extra}" if extra else question})
    messages.append({"role": "assistant", "content": text(place, row, "output")})
    return Chat(messages)


def _refuse_tools(place: str, row: dict[str, Any]) -> None:
    if row.get("tools"):
        raise DataError(place, "has `tools`, which are not supported", "remove the row's tools")


def _message_list(place: str, row: dict[str, Any], name: str) -> list[Message]:
    """Returns a column of messages."""
    messages = column(place, row, name)
    if not isinstance(messages, list) or not messages:
        raise DataError(
            place,
            f"`{name}` is {kind(messages)}",
            "write a list of objects with `role` and `content`",
        )
    for number, message in enumerate(messages):
        _check_message(f"{place}, {name}[{number}]", message)
    return messages


def _check_message(place: str, message: object) -> None:
    if not isinstance(message, dict):
        raise DataError(place, f"is {kind(message)}", "write an object with `role` and `content`")
    role = text(place, message, "role")
    if role not in _ROLES:
        raise DataError(place, f"the role is '{role}'", f"use one of {', '.join(_ROLES)}")
    text(place, message, "content")
    for key in _UNSUPPORTED:
        if message.get(key) is not None:
            raise DataError(place, f"has `{key}`, which is not supported", f"remove `{key}`")


def _completion(place: str, row: dict[str, Any]) -> Completion:
    return Completion(text(place, row, "prompt"), text(place, row, "completion"))


def _preference(place: str, row: dict[str, Any]) -> Pair:
    """Returns a pair; without a `prompt` it is what two conversations have in common."""
    _refuse_tools(place, row)
    if "prompt" not in row and isinstance(row.get("chosen"), list):
        row = _with_prompt(place, row)
    return Pair(*_prompt_and_answers(place, row, "chosen", "rejected"))


def _with_prompt(place: str, row: dict[str, Any]) -> dict[str, Any]:
    """Returns the row with the messages that `chosen` and `rejected` begin with as its prompt."""
    chosen, rejected = (_message_list(place, row, name) for name in ("chosen", "rejected"))
    pairs = enumerate(zip(chosen, rejected, strict=False))
    split = next((number for number, (one, other) in pairs if one != other), None)
    if split is None:
        raise DataError(
            place, _not_a_pair(chosen, rejected), "let each of them end with an answer of its own"
        )
    if split == 0:
        raise DataError(
            place,
            "there is no `prompt`, and `chosen` and `rejected` differ in their first message",
            "let both of them begin with the question, or write it as `prompt`",
        )
    return {"prompt": chosen[:split], "chosen": chosen[split:], "rejected": rejected[split:]}


def _not_a_pair(chosen: list[Message], rejected: list[Message]) -> str:
    """Returns what is wrong with conversations of which each message equals that of the other."""
    if len(chosen) == len(rejected):
        return "`chosen` and `rejected` do not differ in any message"
    short, long = ("chosen", "rejected") if len(chosen) < len(rejected) else ("rejected", "chosen")
    return f"there is no `prompt`, and all of `{short}` is how `{long}` begins, too"


def _judged(place: str, row: dict[str, Any]) -> Judged:
    _refuse_tools(place, row)
    prompt, completion = _prompt_and_answers(place, row, "completion")
    label = column(place, row, "label")
    if not isinstance(label, bool):
        raise DataError(
            place, f"`label` is {kind(label)}", "write true for a good answer, false for a bad one"
        )
    return Judged(prompt, completion, label)


def _prompt_and_answers(place: str, row: dict[str, Any], *answers: str) -> list[Words]:
    """Returns the prompt and each of the answers: all of them texts, or all of them messages."""
    names = ("prompt", *answers)
    for name in names:
        value = column(place, row, name)
        if isinstance(value, list) != isinstance(row["prompt"], list):
            raise DataError(
                place,
                f"`prompt` is {kind(row['prompt'])}, `{name}` is {kind(value)}",
                "write all of them as strings, or all of them as lists of messages",
            )
    if not isinstance(row["prompt"], list):
        return [text(place, row, name) for name in names]
    messages: list[Words] = []
    for name in names:
        turns = _message_list(place, row, name)
        first = "user" if name == "prompt" else "assistant"
        _check_turns(f"{place}, {name}", [turn["role"] for turn in turns], first)
        messages.append(turns)
    return messages


def _check_turns(place: str, roles: list[str], first: str) -> None:
    """Holds [system,] user, assistant ... user in a prompt, assistant, user ... in an answer."""
    turns = roles[1:] if first == "user" and roles[0] == "system" else roles
    order = {"user": ["user", "assistant"], "assistant": ["assistant", "user"]}[first]
    if len(turns) % 2 == 1 and turns == (order * len(turns))[: len(turns)]:
        return
    raise DataError(
        place,
        f"the roles are {', '.join(roles[:8])}{', ...' if len(roles) > 8 else ''}",
        "let a prompt end with the user's turn, and an answer begin and end with the assistant's",
    )


_PARSERS: dict[str, Callable[[str, dict[str, Any]], Content]] = {
    "Alpaca": _alpaca,
    "PromptCompletion": _completion,
    "Preference": _preference,
    "KTO": _judged,
}
