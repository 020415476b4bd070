"""Conversations of each format become the same messages; what cannot is named with its turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jobs
import pytest
from pydantic import ValidationError

from llmtrain_api.datasets import Dataset
from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import rows
from llmtrain_trainer.data.rows import Chat, Completion, Content

URI = "s3://data/rows.jsonl"
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": name, "value": text} for name, text in pairs]


def read(folder: Path, row: dict[str, Any], format_: str, **changes: Any) -> Content:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row))
    dataset = {"uri": URI, "format": format_, **changes}
    spec = RunSpec.model_validate(jobs.small_spec({"datasets": [dataset]}))
    (only,) = rows.read([jobs.input_file(path, URI)], spec, 0)
    return only.content


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


GOOD = turns(("human", "a"), ("gpt", "b"))


@pytest.mark.parametrize(
    ("format_", "row", "changes", "message"),
    [
        pytest.param(
            "ShareGPT",
            {"messages": []},
            {},
            "line 1: has no `conversations` (it has `messages`)",
            id="no conversation",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": []},
            {},
            "line 1: `conversations` is an empty list: write a list of objects with `from` and"
            " `value`",
            id="an empty conversation",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": [*GOOD, "x"]},
            {},
            "line 1, conversations[2]: is a string: write an object with `from` and `value`",
            id="a turn that is no object",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": turns(("user", "a"))},
            {},
            "conversations[0]: the role is 'user': use one of system, human, gpt, observation,"
            " function_call, or name it in the roles of the data set",
            id="a role of another format",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": turns(("human", "a"), ("function_call", "weather()"))},
            {},
            "conversations[1]: `value` is not JSON",
            id="a call that is no JSON",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": turns(("human", "a"), ("function_call", "[]"), ("gpt", "b"))},
            {},
            "conversations[1]: `value` holds no call: write calls as",
            id="no call in a call",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": turns(("human", "a"), ("function_call", '{"arguments": {}}'))},
            {},
            "conversations[1]: `value` holds an object without the name of a tool",
            id="a call of nothing",
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": turns(("human", "a"), ("observation", "b"), ("gpt", "c"))},
            {},
            "line 1: the roles are user, tool, assistant: begin with",
            id="an answer of a tool that was not called",
        ),
        pytest.param(
            "ShareGPT", {"conversations": GOOD, "tools": "["}, {}, "`tools` is not JSON", id="tools"
        ),
        pytest.param(
            "ShareGPT",
            {"conversations": GOOD, "tools": '{"name": "x"}'},
            {},
            "line 1: `tools` is an object: write a list of JSON schemas",
            id="one tool alone",
        ),
        pytest.param(
            "Messages",
            {"messages": [user("a"), answer("b")], "tools": [TOOL, {"type": "function"}]},
            {},
            "line 1, tools[1]: is an object without a name",
            id="a tool without a name",
        ),
        pytest.param(
            "Messages",
            {"messages": [user("a"), answer("", tool_calls=[CALL]), user("b"), answer("c")]},
            {},
            "line 1: the roles are user, assistant, user, assistant: begin with",
            id="a call without an answer",
        ),
        pytest.param(
            "Messages",
            {"messages": [{**user("a"), "tool_calls": [CALL]}, answer("b")]},
            {},
            "messages[0]: has `tool_calls`: let the assistant call tools",
            id="a call by the user",
        ),
        pytest.param(
            "Messages",
            {
                "messages": [
                    user("a"),
                    answer("", tool_calls=[{"function": {"name": "x", "arguments": "3"}}]),
                ]
            },
            {},
            "messages[1]: the arguments in `tool_calls` are a number: write an object",
            id="arguments that are no object",
        ),
        pytest.param(
            "Messages",
            {"messages": [user("a"), answer("b", weight=0)]},
            {},
            "messages[1]: has `weight`, which is not supported",
            id="a weight of one answer",
        ),
        pytest.param(
            "Alpaca",
            {"instruction": "a", "output": "b", "history": [["a", "b", "c"]]},
            {},
            "line 1, history[0]: is a list, not a pair: write a list of pairs",
            id="a history of three",
        ),
        pytest.param(
            "Alpaca",
            {"instruction": "a", "output": "b", "history": "x"},
            {},
            "line 1: `history` is a string: write a list of pairs",
            id="a history in a string",
        ),
        pytest.param(
            "Alpaca",
            {"instruction": "a", "output": "b", "history": [["a", None]]},
            {},
            "line 1, history[0]: `answer` is null",
            id="a history with null",
        ),
        pytest.param(
            "Alpaca",
            {"instruction": "a", "output": "b"},
            {"columns": {"output": "response"}},
            "line 1: has no `response` (it has `instruction`, `output`): add it, or correct"
            " columns.output of the data set",
            id="a chosen column that is not there",
        ),
    ],
)
def test_a_malformed_conversation_is_named(
    format_: str, row: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, row, format_, **changes)
    assert str(error.value).startswith(URI)
    assert message in str(error.value)


def test_two_roles_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"two roles of .* have one name"):
        read(tmp_path, {"conversations": GOOD}, "ShareGPT", roles={"user": "gpt"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"format": "Alpaca", "columns": {"messages": "x"}},
            "columns: the format Alpaca has the columns instruction, input, output, system,"
            " history: remove the others",
            id="a column of another format",
        ),
        pytest.param(
            {"format": "Alpaca", "roles": {"user": "x"}},
            "roles: only for the formats ShareGPT, Messages",
            id="roles where no turn names its speaker",
        ),
        pytest.param(
            {"format": "Messages", "roles": {"toolCall": "x"}},
            "roles.toolCall: only for the format ShareGPT",
            id="a call as a turn of its own",
        ),
    ],
)
def test_names_of_another_format_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Dataset.model_validate({"uri": URI, **changes})
    assert message in str(error.value)


def test_only_the_first_rows_are_read_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 3 + "torn")
    dataset = {"uri": URI, "format": "PromptCompletion", "maxSamples": 2}
    spec = RunSpec.model_validate(jobs.small_spec({"datasets": [dataset]}))
    assert len(list(rows.read([jobs.input_file(path, URI)], spec, 0))) == 2
