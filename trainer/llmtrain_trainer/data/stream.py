"""Running text as one stream of tokens on disk, cut into sequences only where it is read.

    <name>.tokens     the ids of all documents, one after the other, as uint16 or uint32
    <name>.documents  where each document ends, counted in tokens, as int64
    <name>.json       what kind of numbers they are, how many, and the SHA-256 of each file

Nothing of this depends on `training.maxLength`. One process of a node writes the files in bounded
memory; all of them map them, so that a node holds them once, and any sequence is read at once.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel

from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.workdir import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

DType = Literal["uint16", "uint32"]

_CODES: dict[DType, str] = {"uint16": "H", "uint32": "I"}
_TOKENS_IN_16_BITS = 65_536
_NUMBERS_AT_ONCE = 1 << 18  # Per write to disk.


class Kind(BaseModel):
    """What the files of a stream hold."""

    dtype: DType
    tokens: int
    documents: int
    largest_id: int
    tokens_sha256: str
    documents_sha256: str


class StreamWriter:
    """Writes the files of a stream; `<name>.json` last, when all was well.

    Args:
        folder: Where the files are made.
        name: Their name, without a suffix.
        vocabulary: The largest token id plus 1.
    """

    def __init__(self, folder: Path, name: str, vocabulary: int) -> None:
        self._base = folder / name
        self._dtype: DType = "uint16" if vocabulary <= _TOKENS_IN_16_BITS else "uint32"
        self._tokens = _Numbers(self._base.with_suffix(".tokens"), _CODES[self._dtype])
        self._documents = _Numbers(self._base.with_suffix(".documents"), "q")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._tokens)
        self._open.enter_context(self._documents)
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self._open.close()
        if failure is None:
            kind = Kind(
                dtype=self._dtype,
                tokens=self._tokens.count,
                documents=self._documents.count,
                largest_id=self._tokens.largest,
                tokens_sha256=self._tokens.sha256.hexdigest(),
                documents_sha256=self._documents.sha256.hexdigest(),
            )
            write_atomically(self._base.with_suffix(".json"), kind.model_dump_json(indent=1))

    def add(self, ids: Sequence[int]) -> None:
        """Appends one document; one without tokens leaves no trace.

        Raises:
            OverflowError: An id is not of the vocabulary.
        """
        if ids:
            self._tokens.extend(ids)
            self._documents.extend([self._tokens.count])


class _Numbers:
    """A file of numbers that grows at its end, and the SHA-256 of what is in it."""

    def __init__(self, path: Path, code: str) -> None:
        self._path = path
        self._waiting = array(code)
        self._open = ExitStack()
        self._file: IO[bytes] | None = None
        self.count = 0
        self.largest = 0
        self.sha256 = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = self._open.enter_context(self._path.open("wb"))
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            self._flush()

    def extend(self, numbers: Sequence[int]) -> None:
        """Appends numbers."""
        self._waiting.extend(numbers)
        self.count += len(numbers)
        if len(self._waiting) >= _NUMBERS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._file is not None and self._waiting:
            self._file.write(self._waiting)
            self.sha256.update(self._waiting)
            self.largest = max(self.largest, int(np.asarray(self._waiting).max()))
            self._waiting = array(self._waiting.typecode)


class Stream:
    """The tokens that a StreamWriter has written, mapped into memory.

    Args:
        folder: The folder with the files.
        name: Their name, without a suffix.

    Raises:
        ValueError: A file is not as long as `<name>.json` says.
    """

    def __init__(self, folder: Path, name: str) -> None:
        base = folder / name
        self.kind = Kind.model_validate_json(base.with_suffix(".json").read_bytes())
        self.tokens = _map(base.with_suffix(".tokens"), self.kind.dtype, self.kind.tokens)
        self.ends = _map(base.with_suffix(".documents"), "int64", self.kind.documents)

    def starts_within(self, first: int, last: int) -> NDArray[np.int64]:
        """Returns the positions between `first` and `last`, both left out, where a document starts.

        Tokens at these positions, and all after them, do not belong to the document at `first`.
        """
        begin = np.searchsorted(self.ends, first, side="right")
        end = np.searchsorted(self.ends, last, side="left")
        return np.asarray(self.ends[begin:end], dtype=np.int64)


def _map(path: Path, dtype: str, count: int) -> NDArray[Any]:
    if path.stat().st_size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, which are not {count} {dtype}")
    if not count:  # Nothing cannot be mapped.
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def count_of(tokens: int, length: int) -> int:
    """Returns how many sequences of `length` a run of `tokens` is cut into; see `Sequences`."""
    return -(-max(tokens - 1, 0) // length)


class Sequences:
    """The sequences of `length` tokens of a stream, by their index; the last one may be shorter.

    Each has a target: the last token of the stream begins no sequence of its own, whose loss would
    be that of no token. Thus a stream of one token has no sequence.

    Args:
        stream: The stream.
        length: Tokens per sequence.
        isolate: Count positions from the start of each document, by which attention keeps the
            documents of a sequence apart.
        part: The first token that counts, and the one after the last. Default: all.
    """

    def __init__(
        self, stream: Stream, length: int, *, isolate: bool, part: tuple[int, int] | None = None
    ) -> None:
        self._stream = stream
        self._length = length
        self._isolate = isolate
        self._first, self._end = part or (0, len(stream.tokens))

    def __len__(self) -> int:
        return count_of(self._end - self._first, self._length)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        """Returns one sequence, in time that does not depend on the index.

        Returns:
            `input_ids`: the tokens. `targets`: the token after each of them, also that which begins
            the next sequence, so that every token of the stream but its first is a target once;
            `IGNORED` where the last one is followed by none. With `isolate`, `position_ids`.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = self._first + index * self._length
        end = min(first + self._length + 1, self._end)
        window = self._stream.tokens[first:end].astype(np.int64)
        ids, targets = window[: self._length], window[1:]
        if len(targets) < len(ids):
            targets = np.append(targets, IGNORED)
        sequence = {"input_ids": ids, "targets": targets}
        if self._isolate:
            sequence["position_ids"] = self._positions(first, len(ids))
        return sequence

    def _positions(self, first: int, count: int) -> NDArray[np.int64]:
        starts = np.zeros(count, dtype=np.int64)
        inner = self._stream.starts_within(first, first + count) - first
        starts[inner] = inner
        return np.arange(count, dtype=np.int64) - np.maximum.accumulate(starts)
