"""Prepared tokens in storage, by their name: `<place>/<name>/`, whole if the manifest is there.

Files are named by their content, so that two runs that write the same tokens at once do not meet;
the manifest is written last and by one of them. Before use every file is held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from llmtrain_api.base import ApiModel
from llmtrain_api.errors import DataError
from llmtrain_api.layout import MANIFEST, TOKENS
from llmtrain_api.run import RunSpec
from llmtrain_trainer.records import now, read_record, to_bytes
from llmtrain_trainer.storage import Folder, open_folder
from llmtrain_trainer.transfer import download, sha256_of, upload
from llmtrain_trainer.workdir import ACCOUNT

_DIGITS = 16  # Of a file's SHA-256 in its name.


class CachedFile(ApiModel):
    """One file of prepared tokens."""

    name: str
    """Its name on disk."""

    key: str
    """Its name in storage."""

    size: int
    sha256: str


class CachedTokens(ApiModel):
    """`manifest.json` of prepared tokens."""

    format_version: Literal[1] = 1
    files: list[CachedFile]
    created_at: str


def open_cache(spec: RunSpec) -> Folder:
    """Opens the folder that holds the tokens of the runs that share it."""
    uri = spec.preparing.cache_uri
    if uri is not None:
        return open_folder(uri, spec.storage, field="prepare.cacheUri")
    place = f"{spec.output.uri.rstrip('/')}/{TOKENS}"
    return open_folder(place, spec.storage, field="output.uri")


def store(cache: Folder, name: str, source: Path) -> None:
    """Uploads the tokens in the folder `source`, unless somebody else has meanwhile."""
    manifest = f"{name}/{MANIFEST}"
    if cache.read(manifest) is not None:
        return
    files = [_store_one(cache, name, path) for path in sorted(source.iterdir())]
    cache.create(manifest, to_bytes(CachedTokens(files=files, created_at=now())))


def _store_one(cache: Folder, name: str, path: Path) -> CachedFile:
    sha256 = sha256_of(path)
    key = f"{sha256[:_DIGITS]}-{path.name}"
    size, sent = upload(cache, f"{name}/{key}", path)
    if sent != sha256:
        raise RuntimeError(f"{path} changed while it was uploaded")
    return CachedFile(name=path.name, key=key, size=size, sha256=sha256)


def fetch(cache: Folder, name: str, target: Path, tell: Callable[[str], None]) -> bool:
    """Downloads tokens into the folder `target`, `account.json` last; returns whether there are.

    Args:
        cache: The folder that holds the tokens.
        name: Their name, by `tokenkey.of`.
        target: Is made. Until `account.json` is in it, it is nobody's business.
        tell: Is told what is being done.

    Raises:
        DataError: What is stored is not what its manifest says; it counts as not there.
    """
    manifest = read_record(cache, f"{name}/{MANIFEST}", CachedTokens)
    if manifest is None:
        return False
    place, total, done = cache.uri_of(name), sum(file.size for file in manifest.files), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        tell(f"downloading tokens {place} ({done / 1e6:.0f}/{total / 1e6:.0f} MB)")

    for file in sorted(manifest.files, key=lambda file: file.name == ACCOUNT):
        _fetch_one(cache, name, file, target / Path(file.name).name, told)
    return True


def _fetch_one(
    cache: Folder, name: str, file: CachedFile, path: Path, tell: Callable[[int], None]
) -> None:
    draft = path.with_name(f"{path.name}.unverified")
    key = f"{name}/{file.key}"
    for _ in range(2):  # The second one tells a fault on the way from one at rest.
        digest = download(cache, key, draft, size=file.size, tell=tell)
        if draft.stat().st_size == file.size and digest == file.sha256:
            draft.replace(path)
            return
    draft.unlink()
    raise DataError(
        cache.uri_of(key),
        f"its SHA-256 is {digest}, not {file.sha256} as its manifest says",
        "nothing to do: the tokens are made anew",
    )


def forget(cache: Folder, name: str) -> None:
    """Takes back that there are tokens of this name; what is damaged is written anew then."""
    cache.delete([f"{name}/{MANIFEST}"])
