"""Opens one object of a data set as an iterator of rows, each with the place where it stands.

The suffix of the object's name says how it reads: JSON lines, one JSON list, CSV, Parquet, Arrow,
or text with a row in every line; `.gz` or `.zst` after it says that it is compressed. All but the
JSON list are read in bounded memory. Places count from 1, as editors do.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Any

from llmtrain_api.datasets import COMPRESSIONS, SUFFIXES
from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data.columns import kind
from llmtrain_trainer.workdir import InputFile

RawRow = tuple[str, Any]
"""A place, such as `s3://data/rows.jsonl, line 3`, and the row there; it may be no object."""

_ROWS_AT_ONCE = 256  # Of a columnar file: enough to be fast, little to hold.
_BUFFER = 1 << 20
_CODECS = {".gz": "gzip", ".zst": "zstd"}
_RANDOM_ACCESS = (".parquet", ".arrow")  # How they are read, so they cannot be unpacked meanwhile.
_LONGEST_CELL = 2**31 - 1  # Of a CSV file; Python's own limit is 131072 characters.


def read_rows(file: InputFile, index: int) -> Iterator[RawRow]:
    """Yields the rows of the object of dataset `index`, in its order.

    Raises:
        ConfigError: The name does not say how the object reads.
        DataError: The object cannot be read as its name says; the message has the exact place.
    """
    suffix, compression = _split(file.uri)
    reader = _READERS.get(suffix)
    if reader is None:
        raise ConfigError(
            f"datasets[{index}].uri",
            f"{file.uri} ends in none of {', '.join(SUFFIXES)}",
            f"name an object of such a kind; {' or '.join(COMPRESSIONS)} may follow",
        )
    try:
        with ExitStack() as opened:
            stream = _open(Path(file.path), compression, opened)
            if suffix in _RANDOM_ACCESS and compression:
                stream = _unpack(stream, Path(file.path).parent, opened)
            yield from reader(file.uri, stream)
    except OSError as error:
        if not compression:
            raise
        raise DataError(
            file.uri,
            f"cannot be unpacked ({error})",
            f"compress it anew, or name it without {compression} if it is not compressed",
        ) from error


def _split(uri: str) -> tuple[str, str]:
    """Returns the suffix that says how an object reads, and that of its compression or none."""
    path = PurePosixPath(uri)
    if path.suffix in COMPRESSIONS:
        return path.with_suffix("").suffix, path.suffix
    return path.suffix, ""


def _open(path: Path, compression: str, opened: ExitStack) -> IO[bytes]:
    plain = opened.enter_context(path.open("rb"))
    if not compression:
        return plain
    import pyarrow  # Late: most objects are not compressed.

    # Where the end of an object is missing it says so; other readers of zstd just stop there.
    unpacked: Any = pyarrow.CompressedInputStream(plain, _CODECS[compression])
    return opened.enter_context(BufferedReader(unpacked, _BUFFER))


def _unpack(stream: IO[bytes], folder: Path, opened: ExitStack) -> IO[bytes]:
    """Returns the same as a file in `folder`, which vanishes with the last use of it."""
    unpacked = opened.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
    shutil.copyfileobj(stream, unpacked, _BUFFER)
    unpacked.seek(0)
    return unpacked


def _lines(uri: str, stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yields each line's place and text, its line break included."""
    for number, line in enumerate(stream, start=1):
        place = f"{uri}, line {number}"
        try:
            yield place, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(place, f"is not UTF-8 ({error})", "save it as UTF-8") from error


def _json_lines(uri: str, stream: IO[bytes]) -> Iterator[RawRow]:
    for place, line in _lines(uri, stream):
        if not line.strip():
            continue
        try:
            yield place, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                place, f"is not JSON ({error})", "write one JSON object per line"
            ) from error


def _json_list(uri: str, stream: IO[bytes]) -> Iterator[RawRow]:
    try:
        rows = json.loads(stream.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(uri, f"is not UTF-8 ({error})", "save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{uri}, line {error.lineno}",
            f"is not JSON ({error})",
            "write one JSON list, or name a file with one object per line .jsonl",
        ) from error
    if not isinstance(rows, list):
        raise DataError(uri, f"is {kind(rows)}", "write one JSON list of objects")
    for number, row in enumerate(rows, start=1):
        yield f"{uri}, row {number}", row


def _csv(uri: str, stream: IO[bytes]) -> Iterator[RawRow]:
    """Yields rows whose cells are all strings: a CSV file does not say what else they might be."""
    csv.field_size_limit(_LONGEST_CELL)
    cells = csv.reader((line for _, line in _lines(uri, stream)), strict=True)
    header: list[str] | None = None
    while True:
        place = f"{uri}, line {cells.line_num + 1}"  # A quoted cell may hold line breaks.
        try:
            row = next(cells, None)
        except csv.Error as error:
            raise DataError(
                place, f"is not CSV ({error})", "quote cells with commas or quotes in them"
            ) from error
        if row is None:
            return
        if not row:
            continue
        if header is None:
            header = _header(place, row)
        elif len(row) != len(header):
            raise DataError(
                place,
                f"has {len(row)} cells, but the first line names {len(header)} columns",
                "quote cells with commas or quotes in them",
            )
        else:
            yield place, dict(zip(header, row, strict=True))


def _header(place: str, names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(place, f"names the column `{twice[0]}` twice", "rename one of them")
    return names


def _text(uri: str, stream: IO[bytes]) -> Iterator[RawRow]:
    for place, line in _lines(uri, stream):
        if line.strip():
            yield place, {"text": line.removesuffix("\n").removesuffix("\r")}


def _parquet(uri: str, stream: IO[bytes]) -> Iterator[RawRow]:
    import pyarrow  # Late: only columnar files need it.
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(stream).iter_batches(_ROWS_AT_ONCE)
        yield from _numbered(uri, batches)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(uri, "Parquet", error) from error


def _arrow(uri: str, stream: IO[bytes]) -> Iterator[RawRow]:
    """Yields the rows of an Arrow stream, as `datasets` saves it, or of an Arrow file (Feather)."""
    import pyarrow  # Late: only columnar files need it.

    try:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        yield from _numbered(uri, _file_batches(stream) if is_file else _stream_batches(stream))
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(uri, "Arrow", error) from error


def _file_batches(file: IO[bytes]) -> Iterator[Any]:
    import pyarrow

    reader = pyarrow.ipc.open_file(file)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _stream_batches(file: IO[bytes]) -> Iterator[Any]:
    import pyarrow

    yield from pyarrow.ipc.open_stream(file)


def _numbered(uri: str, batches: Iterator[Any]) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            for row in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                number += 1
                yield f"{uri}, row {number}", row


def _unreadable(uri: str, kind_of_file: str, error: Exception) -> DataError:
    return DataError(uri, f"is not {kind_of_file} ({error})", "save it anew, or correct its name")


_READERS: dict[str, Callable[[str, IO[bytes]], Iterator[RawRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".txt": _text,
}
