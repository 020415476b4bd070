"""Large objects between storage and disk: streamed, in bounded memory, hashed on the way."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import obstore

from llmtrain_trainer.storage import Folder

_PIECE = 16 * 1024 * 1024  # Bytes of one ranged read or one part of an upload.
_AHEAD = 6  # Pieces in flight: with _PIECE the bound of memory.
_MOST_PARTS = 9_000  # S3 takes at most 10,000 parts.

Tell = Callable[[int], None]
"""Is told of each number of bytes that has been transferred."""


def ignore_progress(_: int) -> None:
    """A `Tell` for callers that show no progress."""


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(folder: Folder, path: str, source: Path) -> tuple[int, str]:
    """Uploads the file `source` to `path`; returns its size in bytes and its SHA-256."""
    size = source.stat().st_size
    digest = hashlib.sha256()

    def put() -> None:
        nonlocal digest
        digest = hashlib.sha256()
        if size <= _PIECE:
            data = source.read_bytes()
            digest.update(data)
            obstore.put(folder.store, folder.key(path), data)
            return
        piece = max(_PIECE, size // _MOST_PARTS)
        obstore.put(
            folder.store,
            folder.key(path),
            _pieces(source, piece, digest.update),
            chunk_size=piece,
            max_concurrency=4,
        )

    folder.attempt(path, put)
    return size, digest.hexdigest()


def _pieces(source: Path, size: int, see: Callable[[bytes], None]) -> Iterator[bytes]:
    with source.open("rb") as file:
        while data := file.read(size):
            see(data)
            yield data


def download(
    folder: Folder,
    path: str,
    target: Path,
    *,
    size: int,
    etag: str = "",
    tell: Tell = ignore_progress,
) -> str:
    """Downloads the object at `path` into the file `target`; returns its SHA-256.

    `target` appears only when it is whole.

    Args:
        folder: The folder that holds the object.
        path: The object's path in it.
        target: Where it goes; its folder is made.
        size: Size in bytes that a listing named.
        etag: ETag that the object must still have, if given.
        tell: Is told of each piece's number of bytes.

    Raises:
        DataError: The object is gone or changed.
        StorageError: Storage does not answer.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".part")
    digest = hashlib.sha256()
    with draft.open("wb") as file:
        for data in _read_pieces(folder, path, size, etag):
            file.write(data)
            digest.update(data)
            tell(len(data))
    draft.replace(target)
    return digest.hexdigest()


def _read_pieces(folder: Folder, path: str, size: int, etag: str) -> Iterator[bytes]:
    """Yields the object in order, while the next pieces are under way."""

    def read(start: int) -> bytes:
        def get() -> bytes:
            reply = obstore.get(
                folder.store,
                folder.key(path),
                options={
                    "range": (start, min(start + _PIECE, size)),
                    **({"if_match": etag} if etag else {}),
                },
            )
            return bytes(reply.bytes())

        return folder.attempt(path, get)

    if size <= _PIECE:
        if size:
            yield read(0)
        return
    with ThreadPoolExecutor(_AHEAD) as pool:
        under_way: deque[Future[bytes]] = deque()
        for start in range(0, size, _PIECE):
            under_way.append(pool.submit(read, start))
            if len(under_way) == _AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
