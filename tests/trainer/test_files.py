"""Each kind of file is read as rows, and what is wrong with one is named with its place."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import pyarrow
import pyarrow.parquet
import pytest

from llmtrain_api.datasets import COMPRESSIONS, SUFFIXES
from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data.files import RawRow, read_rows

ROWS = [{"text": 'a, "b"\nc'}, {"text": "🙂 é"}]


def read(path: Path) -> list[RawRow]:
    return list(read_rows(jobs.input_file(path, f"s3://data/{path.name}"), 0))


def table(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def arrow(rows: list[dict[str, Any]], writer: Any = pyarrow.ipc.new_stream) -> bytes:
    sink, content = pyarrow.BufferOutputStream(), pyarrow.Table.from_pylist(rows)
    with writer(sink, content.schema) as stream:
        stream.write_table(content)
    return bytes(sink.getvalue())


def csv(rows: list[dict[str, str]]) -> bytes:
    cells = ['"' + row["text"].replace('"', '""') + '"' for row in rows]
    return "\r\n".join(["text", *cells, ""]).encode()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


WRITERS: dict[str, Callable[[Any], bytes]] = {
    ".jsonl": jsonl,
    ".json": lambda rows: json.dumps(rows).encode(),
    ".csv": csv,
    ".parquet": table,
    ".arrow": arrow,
}


def packed(content: bytes, compression: str) -> bytes:
    if compression == ".zst":
        return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))
    return gzip.compress(content) if compression == ".gz" else content


@pytest.mark.parametrize("compression", ["", *COMPRESSIONS])
@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_come_back_from_each_kind_of_file(
    suffix: str, compression: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{suffix}{compression}"
    path.write_bytes(packed(WRITERS[suffix](ROWS), compression))
    assert [row for _, row in read(path)] == ROWS


def test_every_suffix_of_the_api_is_read(tmp_path: Path) -> None:
    assert set(SUFFIXES) == {*WRITERS, ".txt"}


@pytest.mark.parametrize("compression", ["", *COMPRESSIONS])
def test_a_text_file_has_a_row_in_each_line_that_is_not_blank(
    compression: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.txt{compression}"
    path.write_bytes(packed("\ufeffone\r\n\n \n  two \u2028 three".encode(), compression))
    assert read(path) == [
        (f"s3://data/{path.name}, line 1", {"text": "one"}),
        (f"s3://data/{path.name}, line 4", {"text": "  two \u2028 three"}),
    ]


def test_an_arrow_file_with_random_access_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    path.write_bytes(arrow(ROWS, pyarrow.ipc.new_file))
    assert [row for _, row in read(path)] == ROWS


def test_pieces_of_a_compressed_file_may_follow_one_another(tmp_path: Path) -> None:
    for compression in COMPRESSIONS:
        path = tmp_path / f"rows.txt{compression}"
        path.write_bytes(packed(b"one\n", compression) + packed(b"two\n", compression))
        assert [row for _, row in read(path)] == [{"text": "one"}, {"text": "two"}]


def test_rows_of_many_batches_are_numbered_on(tmp_path: Path) -> None:
    many = [{"n": number} for number in range(1, 1001)]
    for name, content in (("rows.parquet", table(many)), ("rows.arrow", arrow(many))):
        (tmp_path / name).write_bytes(content)
        expected = [(f"s3://data/{name}, row {row['n']}", row) for row in many]
        assert read(tmp_path / name) == expected


def test_cells_of_csv_are_strings_at_the_line_where_their_row_begins(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"x\ny"\n\n,z\n')
    assert read(path) == [
        ("s3://data/rows.csv, line 2", {"a": "1", "b": "x\ny"}),
        ("s3://data/rows.csv, line 5", {"a": "", "b": "z"}),
    ]


def test_a_long_cell_of_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "x" * 200_000 + "\n")
    assert [len(row["text"]) for _, row in read(path)] == [200_000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "a.jsonl", b'{"a": 1}\n{"a"', "a.jsonl, line 2: is not JSON", id="a torn line of JSON"
        ),
        pytest.param(
            "a.jsonl", b"[" * 100_000, "a.jsonl, line 1: is not JSON", id="JSON without a bottom"
        ),
        pytest.param("a.jsonl", b"1\n\xff", "a.jsonl, line 2: is not UTF-8", id="bytes in JSON"),
        pytest.param("a.json", b"[1,\n2", "a.json, line 2: is not JSON", id="a torn list"),
        pytest.param("a.json", b"\xff", "a.json: is not UTF-8", id="bytes in a list"),
        pytest.param("a.json", b"{}", "a.json: is an object: write one JSON list", id="no list"),
        pytest.param("a.txt", b"a\n\nb\xff", "a.txt, line 3: is not UTF-8", id="bytes in text"),
        pytest.param("a.csv", b"a\n\xff", "a.csv, line 2: is not UTF-8", id="bytes in CSV"),
        pytest.param(
            "a.csv",
            b'a,b\n1,"x\ny"\n3\n',
            "a.csv, line 4: has 1 cells, but the first line names 2 columns",
            id="a row that is too short",
        ),
        pytest.param(
            "a.csv", b'a,b\n1,"x"y\n', "a.csv, line 2: is not CSV", id="a quote inside of a cell"
        ),
        pytest.param(
            "a.csv", b'a,b\n1,"x\n\n', "a.csv, line 2: is not CSV", id="a quote without an end"
        ),
        pytest.param(
            "a.csv", b"a,b,a\n", "a.csv, line 1: names the column `a` twice", id="twin columns"
        ),
        pytest.param("a.parquet", b"PAR1", "a.parquet: is not Parquet", id="no Parquet"),
        pytest.param("a.parquet", table(ROWS)[:-9], "a.parquet: is not Parquet", id="torn Parquet"),
        pytest.param("a.arrow", b"hello", "a.arrow: is not Arrow", id="no Arrow"),
        pytest.param("a.arrow", b"", "a.arrow: is not Arrow", id="an empty Arrow file"),
        pytest.param(
            "a.arrow", arrow(ROWS)[:-60], "a.arrow: is not Arrow", id="a torn Arrow stream"
        ),
        pytest.param(
            "a.arrow",
            arrow(ROWS, pyarrow.ipc.new_file)[:-60],
            "a.arrow: is not Arrow",
            id="a torn Arrow file",
        ),
        pytest.param(
            "a.txt.gz",
            b"plain",
            "a.txt.gz: cannot be unpacked (zlib inflate failed: incorrect header check): compress"
            " it anew, or name it without .gz if it is not compressed",
            id="plain text named gz",
        ),
        pytest.param("a.txt.zst", b"plain", "a.txt.zst: cannot be unpacked", id="plain named zst"),
        pytest.param(
            "a.txt.gz", packed(b"a\n" * 9, ".gz")[:-9], "a.txt.gz: cannot be", id="torn gz"
        ),
        pytest.param(
            "a.txt.zst", packed(b"a\n" * 9, ".zst")[:-9], "a.txt.zst: cannot be", id="torn zst"
        ),
        pytest.param(
            "a.parquet.gz",
            packed(table(ROWS), ".gz")[:-20],
            "a.parquet.gz: cannot be unpacked",
            id="torn Parquet in gz",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read(tmp_path / name)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.gz", "rows.jsonl.bz2"])
def test_a_name_that_does_not_say_how_it_reads_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"a")
    with pytest.raises(ConfigError, match=rf"datasets\[0\].uri: s3://data/{name} ends in none"):
        read(tmp_path / name)
