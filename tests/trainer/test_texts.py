"""Documents come one at a time, and their text alone says on which side of the split they are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny

from llmtrain_api.errors import DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import texts
from llmtrain_trainer.data.texts import Document


def spec(uris: list[str], fraction: float | None = None) -> RunSpec:
    content: dict[str, Any] = {
        "stage": "Tokenizer",
        "datasets": [{"uri": uri, "format": "Text"} for uri in uris],
        "tokenizerTraining": {"vocabSize": 300},
        "output": {"uri": "s3://runs/tokenizer/"},
    }
    if fraction is not None:
        content["evaluation"] = {"fraction": fraction}
    return RunSpec.model_validate(content)


def read(folder: Path, contents: dict[str, bytes], fraction: float | None = None) -> list[Document]:
    files = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        files.append(jobs.input_file(folder / name, f"s3://data/{name}"))
    return list(texts.documents(files, spec([file.uri for file in files], fraction)))


def test_documents_of_all_files_follow_one_another(tmp_path: Path) -> None:
    rows = tiny.jsonl([{"text": "one\ntwo", "url": 3}, {"text": ""}])
    assert read(tmp_path, {"a.jsonl": rows, "b.txt": b"three\n\nfour"}) == [
        Document("s3://data/a.jsonl, line 1", "one\ntwo", held_out=False),
        Document("s3://data/a.jsonl, line 2", "", held_out=False),
        Document("s3://data/b.txt, line 1", "three", held_out=False),
        Document("s3://data/b.txt, line 3", "four", held_out=False),
    ]


def test_the_text_may_stand_in_another_column_and_the_first_rows_may_do(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(tiny.jsonl([{"content": str(number), "text": "no"} for number in range(5)]))
    files = [jobs.input_file(path, "s3://data/a.jsonl")]
    changes = {"columns": {"text": "content"}, "maxSamples": 2}
    chosen = RunSpec.model_validate(
        {
            "stage": "Tokenizer",
            "datasets": [{"uri": "s3://data/a.jsonl", "format": "Text", **changes}],
            "tokenizerTraining": {"vocabSize": 300},
            "output": {"uri": "s3://runs/tokenizer/"},
        }
    )
    assert [document.text for document in texts.documents(files, chosen)] == ["0", "1"]


def test_what_is_held_out_follows_from_the_text_alone(tmp_path: Path) -> None:
    words = [f"document {number}" for number in range(1000)]
    first = [{"text": word, "id": number} for number, word in enumerate(words)]
    again = [{"source": "elsewhere", "text": word} for word in reversed(words)]
    contents = {
        "a.jsonl": tiny.jsonl(first),
        "b.jsonl": tiny.jsonl(again),
        "c.txt": "\n".join(words).encode(),
    }
    sides: dict[str, set[bool]] = {}
    for document in read(tmp_path, contents, fraction=0.1):
        sides.setdefault(document.text, set()).add(document.held_out)
    assert all(len(seen) == 1 for seen in sides.values())
    assert 70 < sum(seen == {True} for seen in sides.values()) < 130


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(b"[1]", "line 1: is a list: write one JSON object per row", id="a list"),
        pytest.param(
            b'{"content": "a"}',
            "line 1: has no `text` (it has `content`)",
            id="a text under another name",
        ),
        pytest.param(b'{"text": 3}', "line 1: `text` is a number", id="a number as text"),
        pytest.param(b'{"text": null}', "line 1: `text` is null", id="null as text"),
        pytest.param(b'{"text": "\\ud800"}', "line 1: `text` holds half of", id="half a character"),
        pytest.param(b"\n", "a.jsonl: holds no rows", id="no rows"),
    ],
)
def test_a_row_without_text_is_named(row: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, {"a.jsonl": row})
    assert message in str(error.value)


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("w") as file:
        file.writelines(f"{number} {'x' * 1000}\n" for number in range(20_000))
    files = [jobs.input_file(path, "s3://data/a.txt")]
    tracemalloc.start()
    count = sum(1 for _ in texts.documents(files, spec(["s3://data/a.txt"])))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < path.stat().st_size / 10
