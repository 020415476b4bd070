"""Files that grow, read line by line and carried to storage in numbered pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmtrain_trainer.storage import Folder

_MOST_BYTES = 4 * 1024 * 1024  # Of one piece, so that an outage does not end in one huge object.
_LONGEST_LINE = 64 * 1024  # In bytes; what has no end is passed on in pieces of this size.


class Tail:
    """Reads what a growing file has gained, whole lines at a time. The file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""

    def read(self, *, to_the_end: bool = False) -> list[str]:
        """Returns the new lines, without their ends; with `to_the_end` an unfinished one too.

        Reads a few MiB at most, unless it is `to_the_end`.
        """
        lines: list[bytes] = []
        while data := self._read_some():
            *whole, self._rest = (self._rest + data).split(b"\n")
            lines += whole
            if not to_the_end:
                break
        if self._rest and (to_the_end or len(self._rest) > _LONGEST_LINE):
            lines.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    def _read_some(self) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read(_MOST_BYTES)
        self._position += len(data)
        return data


class SegmentedUpload:
    """Carries a growing file to storage as numbered objects, since S3 cannot append.

    The file is the buffer: through an outage memory stays as it is and nothing is lost.
    """

    def __init__(self, path: Path, key_of: Callable[[int], str]) -> None:
        self._path = path
        self._key_of = key_of
        self._position = 0
        self._segment = 0
        self._under_way = 0  # Bytes of the segment whose fate an outage has left open.

    def upload(self, output: Folder, *, to_the_end: bool = False) -> None:
        """Uploads what is new, up to the last whole line or `to_the_end`.

        Raises:
            LLMTrainError: Storage does not take it; what is left goes with the next call.
        """
        while data := self._next_piece(to_the_end=to_the_end):
            self._under_way = len(data)
            created = output.create(self._key_of(self._segment), data)
            self._under_way = 0
            self._segment += 1
            if created:
                self._position += len(data)

    def _next_piece(self, *, to_the_end: bool) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read(self._under_way or _MOST_BYTES)
        if self._under_way or to_the_end or len(data) == _MOST_BYTES:
            return data
        return data[: data.rfind(b"\n") + 1]
