"""Rows are read as written, and each mistake is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import rows
from llmtrain_trainer.data.rows import Chat, Completion, Row

URI = "s3://data/rows.jsonl"


def spec(form: str, **changes: Any) -> RunSpec:
    dataset = {"uri": changes.pop("uri", URI), "format": form}
    return RunSpec.model_validate(jobs.small_spec({"datasets": [dataset], **changes}))


def read(content: bytes, form: str, tmp_path: Path, uri: str = URI) -> list[Row]:
    path = tmp_path / "rows"
    path.write_bytes(content)
    return list(rows.read([jobs.input_file(path, uri)], spec(form, uri=uri), 0))


def lines(*values: Any) -> bytes:
    return "\n".join(json.dumps(value) for value in values).encode()


USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "ho"}
SYSTEM = {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        pytest.param(
            {"instruction": "a", "output": "b"},
            [("user", "a"), ("assistant", "b")],
            id="an instruction is a question",
        ),
        pytest.param(
            {"instruction": "a", "input": "x", "output": "b"},
            [("user", "a\n\nx"), ("assistant", "b")],
            id="an input follows the instruction",
        ),
        pytest.param(
            {"instruction": "a", "input": "", "system": "s", "output": "b"},
            [("system", "s"), ("user", "a"), ("assistant", "b")],
            id="a system text comes first",
        ),
        pytest.param(
            {"instruction": "a", "input": None, "system": None, "output": "", "text": 3},
            [("user", "a"), ("assistant", "")],
            id="null stands for absent and other columns do not matter",
        ),
    ],
)
def test_alpaca(row: dict[str, Any], messages: list[tuple[str, str]], tmp_path: Path) -> None:
    (read_row,) = read(lines(row), "Alpaca", tmp_path)
    assert isinstance(read_row.content, Chat)
    assert [(m["role"], m["content"]) for m in read_row.content.messages] == messages


def test_messages_are_taken_as_they_are(tmp_path: Path) -> None:
    chat = [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]
    (row,) = read(lines({"messages": chat}), "Messages", tmp_path)
    assert row.content == Chat(chat)


def test_prompt_and_completion(tmp_path: Path) -> None:
    (row,) = read(lines({"prompt": "a", "completion": "b"}), "PromptCompletion", tmp_path)
    assert row.content == Completion("a", "b")


def test_blank_lines_count_as_lines_and_hold_no_row(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b"}
    content = b"\xef\xbb\xbf" + lines(row) + b"\n\n  \r\n" + lines(row) + b"\n"
    places = [row.place for row in read(content, "PromptCompletion", tmp_path)]
    assert places == [f"{URI}, line 1", f"{URI}, line 4"]


def test_a_json_list_is_read_as_rows(tmp_path: Path) -> None:
    uri = "s3://data/rows.json"
    content = json.dumps([{"prompt": "a", "completion": "b"}] * 2, indent=1).encode()
    places = [row.place for row in read(content, "PromptCompletion", tmp_path, uri)]
    assert places == [f"{uri}, row 1", f"{uri}, row 2"]


GOOD = b'{"instruction": "a", "output": "b"}\n'


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        pytest.param(
            "Alpaca", GOOD + b'{"instruction": ', "line 2: is not JSON", id="malformed JSON"
        ),
        pytest.param(
            "Alpaca", GOOD + b'"\xff"', "line 2: is not UTF-8", id="bytes that are no text"
        ),
        pytest.param("Alpaca", GOOD + b"[1]", "line 2: is a list: write one", id="a list as a row"),
        pytest.param("Alpaca", b"\n\n", "jsonl: holds no rows", id="an empty data set"),
        pytest.param(
            "Alpaca",
            GOOD + b'{"instruction": "a", "response": "b"}',
            "line 2: has no `output` (it has `instruction`, `response`)",
            id="a missing column",
        ),
        pytest.param(
            "Alpaca",
            b'{"instruction": ["a"], "output": "b"}',
            "line 1: `instruction` is a list: make `instruction` a string",
            id="a column of the wrong type",
        ),
        pytest.param(
            "Alpaca",
            b'{"instruction": "\\ud800", "output": "b"}',
            "line 1: `instruction` holds half of a surrogate pair",
            id="half a character",
        ),
        pytest.param(
            "PromptCompletion", b'{"prompt": "a"}', "has no `completion`", id="no completion"
        ),
        pytest.param(
            "Messages", b'{"messages": []}', "`messages` is an empty list", id="no messages"
        ),
        pytest.param(
            "Messages", b'{"messages": "hi"}', "`messages` is a string", id="messages in a string"
        ),
        pytest.param(
            "Messages",
            lines({"messages": [USER, "ho"]}),
            "line 1, messages[1]: is a string",
            id="a message that is no object",
        ),
        pytest.param(
            "Messages",
            lines({"messages": [{"role": "bot", "content": "x"}]}),
            "messages[0]: the role is 'bot': use one of system, user, assistant",
            id="an unknown role",
        ),
        pytest.param(
            "Messages",
            lines({"messages": [USER, {"role": "assistant", "content": None}]}),
            "messages[1]: `content` is null",
            id="an answer without text",
        ),
    ],
)
def test_a_malformed_row_is_named(form: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(content, form, tmp_path)
    assert str(error.value).startswith(URI)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "roles",
    [
        pytest.param("u", id="a question without an answer"),
        pytest.param("a", id="an answer without a question"),
        pytest.param("s", id="a system message alone"),
        pytest.param("sa", id="an answer to the system"),
        pytest.param("uau", id="a question at the end"),
        pytest.param("uuaa", id="two questions in a row"),
        pytest.param("usa", id="a late system message"),
        pytest.param("auua", id="the assistant first"),
    ],
)
def test_roles_in_an_order_that_makes_no_sense(roles: str, tmp_path: Path) -> None:
    messages = [{"s": SYSTEM, "u": USER, "a": ASSISTANT}[role] for role in roles]
    with pytest.raises(DataError, match=r"line 1: the roles are .*: begin with"):
        read(lines({"messages": messages}), "Messages", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'[\n{"prompt": 1},\n', "rows.json, line 3: is not JSON", id="a torn list"),
        pytest.param(b'{"a": 1}', "rows.json: is an object: write one JSON list", id="no list"),
        pytest.param(b"[]", "rows.json: holds no rows", id="an empty list"),
        pytest.param(b"[3]", "rows.json, row 1: is a number", id="a number as a row"),
    ],
)
def test_a_malformed_json_list_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(content, "PromptCompletion", tmp_path, "s3://data/rows.json")
    assert message in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The spec's own rule refuses it first; the reader does not count on that."""
    path = tmp_path / "rows"
    path.write_bytes(b"a,b")
    file = jobs.input_file(path, "s3://data/rows.xlsx")
    with pytest.raises(ConfigError, match=r"datasets\[0\].uri: .*rows.xlsx ends in none of .jsonl"):
        list(rows.read([file], spec("Alpaca"), 0))


def test_which_rows_are_held_out_follows_from_their_content_alone() -> None:
    numbered = [{"prompt": str(number), "completion": "x"} for number in range(1000)]
    held_out = [row["prompt"] for row in numbered if rows.is_held_out(row, 0.1)]
    backwards = [row["prompt"] for row in reversed(numbered) if rows.is_held_out(row, 0.1)]
    assert held_out == backwards[::-1]
    assert 70 < len(held_out) < 130
    assert not any(rows.is_held_out(row, 0.0) for row in numbered)
    assert rows.is_held_out({"a": 1, "b": 2}, 0.5) == rows.is_held_out({"b": 2, "a": 1}, 0.5)


@pytest.mark.parametrize(
    ("fraction", "count", "message"),
    [
        pytest.param(
            0.001, 5, "of 5 rows 0 would be held out and 5 trained on", id="none held out"
        ),
        pytest.param(0.999, 5, "of 5 rows 5 would be held out and 0 trained on", id="none trained"),
    ],
)
def test_a_split_with_an_empty_side_is_refused(
    fraction: float, count: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(lines(*({"prompt": str(n), "completion": "x"} for n in range(count))))
    files = [jobs.input_file(path, URI)]
    with pytest.raises(ConfigError, match="evaluation.fraction: " + message):
        rows.check(files, spec("PromptCompletion", evaluation={"fraction": fraction}))


def with_columns(form: str, columns: dict[str, str], **more: Any) -> RunSpec:
    dataset = {"uri": URI, "format": form, "columns": columns, **more}
    return RunSpec.model_validate(jobs.small_spec({"datasets": [dataset]}))


PLAIN = {"instruction": "a", "output": "b"}
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}


@pytest.mark.parametrize(
    ("given", "run", "theirs", "name", "count"),
    [
        pytest.param(
            [PLAIN, PLAIN],
            with_columns("Alpaca", {"output": "output", "input": "context"}),
            "context",
            "input",
            2,
            id="of an instruction",
        ),
        pytest.param(
            [SHAREGPT],
            with_columns("ShareGPT", {"system": "sytsem", "role": "from", "content": "value"}),
            "sytsem",
            "system",
            1,
            id="of a conversation",
        ),
        pytest.param(
            [{"messages": [USER, ASSISTANT]}],
            with_columns("Messages", {"tools": "functions"}),
            "functions",
            "tools",
            1,
            id="of messages",
        ),
        pytest.param(
            [PLAIN, {**PLAIN, "context": "x"}],
            with_columns("Alpaca", {"input": "context"}, maxSamples=1),
            "context",
            "input",
            1,
            id="of the rows that are read",
        ),
    ],
)
def test_a_chosen_column_that_no_row_has_is_refused(
    given: list[Any], run: RunSpec, theirs: str, name: str, count: int, tmp_path: Path
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(lines(*given))
    files = [jobs.input_file(path, URI)]
    message = (
        f"{URI}: none of the {count} rows read has `{theirs}`: correct columns.{name} of the data"
        " set, or remove it"
    )
    for reads in (lambda: rows.check(files, run), lambda: list(rows.read(files, run, 0))):
        with pytest.raises(DataError) as error:
            reads()
        assert str(error.value) == message


def test_a_chosen_column_that_a_row_may_do_without_is_that_of_one_row_at_least(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(lines({**PLAIN, "input": "not this"}, {**PLAIN, "context": "x"}))
    run = with_columns("Alpaca", {"input": "context"})
    found = [row.content for row in rows.read([jobs.input_file(path, URI)], run, 0)]
    questions = [row.messages[0]["content"] for row in found if isinstance(row, Chat)]
    assert questions == ["a", "a\n\nx"]


def test_check_reads_every_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(lines({"prompt": "a", "completion": "b"}))
    bad.write_bytes(b"{")
    uris = ["s3://data/good.jsonl", "s3://data/bad.jsonl"]
    datasets = [{"uri": uri, "format": "PromptCompletion"} for uri in uris]
    run = RunSpec.model_validate(jobs.small_spec({"datasets": datasets}))
    files = [jobs.input_file(path, uri) for path, uri in zip((good, bad), uris, strict=True)]
    rows.check(files[:1], run)
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1"):
        rows.check(files, run)


def test_rows_of_one_group_are_held_out_together() -> None:
    numbered: list[dict[str, Any]] = [
        {"prompt": str(number), "completion": "x", "chat": number // 5} for number in range(2000)
    ]
    grouped = {"evaluation": {"fraction": 0.1, "groupBy": "chat"}}
    chosen = RunSpec.model_validate(jobs.small_spec(grouped))
    sides: dict[int, set[bool]] = {}
    for row in numbered:
        sides.setdefault(row["chat"], set()).add(rows.falls_out("row", row, chosen, row))
    assert all(len(side) == 1 for side in sides.values())
    assert 20 < sum(side == {True} for side in sides.values()) < 60


@pytest.mark.parametrize("row", [{"prompt": "a"}, {"prompt": "a", "chat": None}])
def test_a_row_without_its_group_is_refused(row: dict[str, Any]) -> None:
    chosen = RunSpec.model_validate(
        jobs.small_spec({"evaluation": {"fraction": 0.1, "groupBy": "chat"}})
    )
    message = "line 3: has no `chat`, by which rows are held out together: add it to every row"
    with pytest.raises(DataError, match=message):
        rows.falls_out("line 3", row, chosen, row)
