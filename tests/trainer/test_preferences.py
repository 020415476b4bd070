"""Preferences are read as they are written; a bad row is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny
from pairs import BAD, CHAT, GOOD, MARK, SYSTEM, TEXT, URI, USER, changes

from llmtrain_api.errors import DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import rows
from llmtrain_trainer.data.rows import Judged, Pair, Row


def read(stage: str, row: Any, tmp_path: Path) -> Row:
    path = tmp_path / "rows"
    path.write_bytes(tiny.jsonl([row]))
    spec = RunSpec.model_validate(jobs.small_spec(changes(stage)))
    (one,) = rows.read([jobs.input_file(path, URI)], spec, 0)
    return one


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(TEXT, Pair("2 + 2 = ", "4", "5"), id="texts"),
        pytest.param(CHAT, Pair([USER], [GOOD], [BAD]), id="messages"),
        pytest.param(
            {**CHAT, "prompt": [SYSTEM, USER, GOOD, USER], "chosen": [GOOD, USER, BAD]},
            Pair([SYSTEM, USER, GOOD, USER], [GOOD, USER, BAD], [BAD]),
            id="several turns",
        ),
        pytest.param(
            {"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]},
            Pair([SYSTEM, USER], [GOOD], [BAD]),
            id="whole conversations, whose common beginning is the prompt",
        ),
        pytest.param(
            {**TEXT, "chosen": "", "score": 3}, Pair("2 + 2 = ", "", "5"), id="an empty answer"
        ),
    ],
)
def test_a_pair_is_read(row: dict[str, Any], expected: Pair, tmp_path: Path) -> None:
    assert read("DPO", row, tmp_path).content == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(MARK, Judged([USER], [GOOD], good=True), id="messages"),
        pytest.param(
            {"prompt": "a", "completion": "b", "label": False},
            Judged("a", "b", good=False),
            id="texts",
        ),
    ],
)
def test_a_judged_answer_is_read(row: dict[str, Any], expected: Judged, tmp_path: Path) -> None:
    assert read("KTO", row, tmp_path).content == expected


@pytest.mark.parametrize(
    ("stage", "row", "message"),
    [
        pytest.param(
            "DPO",
            {"prompt": "a", "chosen": "b"},
            "line 1: has no `rejected` (it has `chosen`, `prompt`)",
            id="no worse answer",
        ),
        pytest.param(
            "DPO",
            {"chosen": "b", "rejected": "c"},
            "line 1: has no `prompt`",
            id="no prompt beside texts",
        ),
        pytest.param(
            "Reward",
            {**CHAT, "prompt": "hi"},
            "line 1: `prompt` is a string, `chosen` is a list: write all of them as strings, or all"
            " of them as lists of messages",
            id="a text with messages",
        ),
        pytest.param(
            "DPO",
            {**TEXT, "rejected": None},
            "line 1: `rejected` is null: make `rejected` a string",
            id="null",
        ),
        pytest.param("DPO", {**TEXT, "chosen": 4}, "`chosen` is a number", id="a number"),
        pytest.param(
            "DPO",
            {**CHAT, "chosen": []},
            "line 1: `chosen` is an empty list: write a list of objects with `role` and `content`",
            id="no messages",
        ),
        pytest.param(
            "DPO",
            {**CHAT, "rejected": ["go away"]},
            "line 1, rejected[0]: is a string: write an object with `role` and `content`",
            id="a message that is no object",
        ),
        pytest.param(
            "DPO",
            {**CHAT, "chosen": [{"role": "bot", "content": "x"}]},
            "line 1, chosen[0]: the role is 'bot': use one of system, user, assistant",
            id="an unknown role",
        ),
        pytest.param(
            "DPO",
            {**CHAT, "prompt": [USER, GOOD]},
            "line 1, prompt: the roles are user, assistant: let a prompt end with the user's turn",
            id="a prompt that is answered",
        ),
        pytest.param(
            "DPO",
            {**CHAT, "prompt": [SYSTEM]},
            "line 1, prompt: the roles are system: let a prompt end",
            id="a prompt without a question",
        ),
        pytest.param(
            "DPO",
            {**CHAT, "rejected": [USER]},
            "line 1, rejected: the roles are user: let a prompt end with the user's turn, and an"
            " answer begin and end with the assistant's",
            id="an answer of the user",
        ),
        pytest.param(
            "DPO",
            {"chosen": [USER, GOOD], "rejected": [USER, GOOD]},
            "line 1: `chosen` and `rejected` do not differ in any message: let each of them end"
            " with an answer of its own",
            id="two conversations that are one",
        ),
        pytest.param(
            "DPO",
            {"chosen": [USER, GOOD], "rejected": [USER, GOOD, USER, BAD]},
            "line 1: there is no `prompt`, and all of `chosen` is how `rejected` begins, too: let",
            id="a better conversation that is the beginning of the worse one",
        ),
        pytest.param(
            "DPO",
            {"chosen": [USER, GOOD, USER, BAD], "rejected": [USER, GOOD]},
            "line 1: there is no `prompt`, and all of `rejected` is how `chosen` begins, too: let",
            id="a worse conversation that is the beginning of the better one",
        ),
        pytest.param(
            "DPO",
            {"chosen": [USER, GOOD], "rejected": [{**USER, "content": "x"}, BAD]},
            "line 1: there is no `prompt`, and `chosen` and `rejected` differ in their first"
            " message: let both of them begin with the question, or write it as `prompt`",
            id="two conversations that begin differently",
        ),
        pytest.param(
            "DPO", {**CHAT, "tools": [{}]}, "line 1: has `tools`, which are not", id="tools"
        ),
        pytest.param(
            "KTO",
            {**MARK, "label": "good"},
            "line 1: `label` is a string: write true for a good answer, false for a bad one",
            id="a label in words",
        ),
        pytest.param("KTO", {**MARK, "label": 1}, "`label` is a number", id="a label in numbers"),
        pytest.param(
            "KTO",
            {"prompt": "a", "completion": "b"},
            "line 1: has no `label`",
            id="an answer without a label",
        ),
        pytest.param(
            "KTO", CHAT, "line 1: has no `completion` (it has `chosen`", id="a pair for KTO"
        ),
    ],
)
def test_a_bad_row_is_named(stage: str, row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(stage, row, tmp_path)
    assert f"{URI}, line 1" in str(error.value)
    assert message in str(error.value)
