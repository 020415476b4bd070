"""Conversations of each format become the same messages; what cannot is named with its turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jobs
import pytest
from talks import CALL, TOOL, URI, WEATHER, answer, read, system, tool, turns, user

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import rows
from llmtrain_trainer.data.rows import Chat, Completion, Content


@pytest.mark.parametrize(
    ("row", "changes", "expected"),
    [
        pytest.param(
            {"conversations": turns(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", ""))},
            {},
            Chat([user("a"), answer("b"), user("c"), answer("")]),
            id="people and models take turns",
        ),
        pytest.param(
            {"conversations": turns(("human", "a"), ("gpt", "b")), "system": "s", "tools": ""},
            {},
            Chat([system("s"), user("a"), answer("b")]),
            id="a system text of the row comes first",
        ),
        pytest.param(
            {
                "conversations": turns(("system", "own"), ("human", "a"), ("gpt", "b")),
                "system": "s",
            },
            {},
            Chat([system("own"), user("a"), answer("b")]),
            id="a system turn counts before the row's text",
        ),
        pytest.param(
            {
                "conversations": turns(
                    ("human", "a"),
                    ("function_call", '{"name": "weather", "arguments": {"city": "Köln"}}'),
                    ("observation", "rain"),
                    ("gpt", "b"),
                ),
                "tools": json.dumps([WEATHER]),
            },
            {},
            Chat(
                [user("a"), answer("", tool_calls=[CALL]), tool("rain"), answer("b")],
                tools=[TOOL],
            ),
            id="calls and tools are JSON",
        ),
        pytest.param(
            {"talk": [{"who": "Q", "what": "a"}, {"who": "A", "what": "b"}], "context": "s"},
            {
                "columns": {
                    "messages": "talk",
                    "role": "who",
                    "content": "what",
                    "system": "context",
                },
                "roles": {"user": "Q", "assistant": "A"},
            },
            Chat([system("s"), user("a"), answer("b")]),
            id="all names may be others",
        ),
        pytest.param(
            {
                "conversations": [
                    {"from": "human", "value": "a", "role": "assistant", "content": ""},
                    {"from": "gpt", "value": "b", "role": "user", "content": "no", "name": "Bo"},
                ]
            },
            {},
            Chat([user("a"), answer("b", name="Bo")]),
            id="what a turn holds besides does not stand in for its columns",
        ),
    ],
)
def test_sharegpt(
    row: dict[str, Any], changes: dict[str, Any], expected: Chat, tmp_path: Path
) -> None:
    assert read(tmp_path, row, "ShareGPT", **changes) == expected


@pytest.mark.parametrize(
    ("row", "changes", "expected"),
    [
        pytest.param(
            {
                "messages": [
                    user("a"),
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {
                                "id": "c1",
                                "type": "function",
                                "function": {"name": "weather", "arguments": '{"city": "Köln"}'},
                            },
                            {"name": "weather", "arguments": {"city": "Köln"}},
                        ],
                    },
                    {"role": "tool", "content": "rain", "tool_call_id": "c1", "name": None},
                    tool("sun"),
                    answer("b", reasoning_content="r", tool_calls=None),
                    user("c"),
                    answer("d", tool_calls=[]),
                ],
                "tools": [TOOL],
            },
            {},
            Chat(
                [
                    user("a"),
                    answer("", tool_calls=[{"id": "c1", **CALL}, CALL]),
                    {"role": "tool", "content": "rain", "tool_call_id": "c1"},
                    tool("sun"),
                    answer("b", reasoning_content="r"),
                    user("c"),
                    answer("d"),
                ],
                tools=[TOOL],
            ),
            id="arguments become objects and null goes",
        ),
        pytest.param(
            {"messages": [user("a"), answer("b", tool_calls=[CALL])], "tools": [WEATHER]},
            {},
            Chat([user("a"), answer("b", tool_calls=[CALL])], tools=[TOOL]),
            id="a call may come last",
        ),
        pytest.param(
            {"chat": [{"role": "prompter", "text": "a"}, {"role": "assistant", "text": "b"}]},
            {"columns": {"messages": "chat", "content": "text"}, "roles": {"user": "prompter"}},
            Chat([user("a"), answer("b")]),
            id="names may be others",
        ),
        pytest.param(
            {"messages": [{**user(""), "text": "a"}, {**answer("no"), "text": "b"}]},
            {"columns": {"content": "text"}},
            Chat([user("a"), answer("b")]),
            id="a column counts before one of the format's name",
        ),
    ],
)
def test_messages(
    row: dict[str, Any], changes: dict[str, Any], expected: Chat, tmp_path: Path
) -> None:
    assert read(tmp_path, row, "Messages", **changes) == expected


def test_the_history_of_alpaca_comes_before_the_instruction(tmp_path: Path) -> None:
    row = {
        "instruction": "c",
        "input": "x",
        "output": "d",
        "system": "s",
        "history": [["a", "b"], ["", ""]],
    }
    expected = [system("s"), user("a"), answer("b"), user(""), answer("")]
    expected += [user("c\n\nx"), answer("d")]
    assert read(tmp_path, row, "Alpaca") == Chat(expected)


@pytest.mark.parametrize(
    ("format_", "row", "columns", "expected"),
    [
        pytest.param(
            "Alpaca",
            {
                "question": "a",
                "response": "b",
                "output": "other",
                "past": [["x", "y"]],
            },
            {"instruction": "question", "output": "response", "history": "past"},
            Chat([user("x"), answer("y"), user("a"), answer("b")]),
            id="a chosen column counts before one of the format's name",
        ),
        pytest.param(
            "Alpaca",
            {"instruction": "b", "output": "a"},
            {"instruction": "output", "output": "instruction"},
            Chat([user("a"), answer("b")]),
            id="names may be swapped",
        ),
        pytest.param(
            "PromptCompletion",
            {"question": "a", "answer": "b"},
            {"prompt": "question", "completion": "answer"},
            Completion("a", "b"),
            id="prompt and completion",
        ),
    ],
)
def test_columns_may_have_other_names(
    format_: str,
    row: dict[str, Any],
    columns: dict[str, str],
    expected: Content,
    tmp_path: Path,
) -> None:
    assert read(tmp_path, row, format_, columns=columns) == expected


def test_only_the_first_rows_are_read_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 3 + "torn")
    dataset = {"uri": URI, "format": "PromptCompletion", "maxSamples": 2}
    spec = RunSpec.model_validate(jobs.small_spec({"datasets": [dataset]}))
    assert len(list(rows.read([jobs.input_file(path, URI)], spec, 0))) == 2
