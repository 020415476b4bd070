"""What is wrong in a conversation is named with its turn, and names that do not fit are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from talks import CALL, TOOL, URI, answer, read, turns, user

from llmtrain_api.datasets import Dataset
from llmtrain_api.errors import ConfigError, DataError

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
