"""Object storage, `s3://` and `file://` alike, through one small interface over `obstore`.

A `Folder` is a URI whose objects are read and written by their path below it. Errors come out as
those of `llmtrain_api.errors`, naming the object; outages are waited out for a while first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from llmtrain_api.errors import ConfigError
from llmtrain_api.layout import SECRET_FOLDER
from llmtrain_api.training import Storage
from llmtrain_trainer.storage_errors import (
    KEY_FAULTS,
    OUTAGES,
    Fault,
    detail_of,
    fault_of,
    to_error,
)

if TYPE_CHECKING:
    from obstore.store import S3Credential

PATIENCE = 60.0
"""Seconds that an outage is waited out before it is an error."""
_FIRST_PAUSE = 0.2  # Seconds; doubles with each failure.
_DEFAULT_REGION = "us-east-1"
_KEY_LIFETIME = timedelta(seconds=30)  # How soon a rotated key is noticed.
_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredObject:
    """One object as a listing names it; `path` is relative to the folder."""

    path: str
    size: int
    etag: str
    modified: datetime


class Folder:
    """A URI and what lies below it. Safe to use from several threads."""

    def __init__(
        self,
        uri: str,
        store: ObjectStore,
        prefix: str,
        *,
        field: str,
        endpoint: str,
        patience: float = PATIENCE,
    ) -> None:
        self.uri = uri.rstrip("/")
        self.store = store
        self.field = field
        self.patience = patience
        self._prefix = prefix.strip("/")
        self._endpoint = endpoint
        self._worked = False

    def uri_of(self, path: str) -> str:
        """Returns the URI of the object at `path`."""
        return f"{self.uri}/{path}" if path else self.uri

    def key(self, path: str) -> str:
        """Returns the key of `path` in the bucket."""
        return "/".join(part for part in (self._prefix, path) if part)

    def read(self, path: str) -> bytes | None:
        """Returns the object at `path`, or nothing where there is none."""

        def get() -> bytes | None:
            try:
                return bytes(obstore.get(self.store, self.key(path)).bytes())
            except FileNotFoundError as error:
                if fault_of(error) is Fault.OBJECT_MISSING:
                    return None
                raise

        return self.attempt(path, get)

    def write(self, path: str, data: bytes) -> None:
        """Writes the object at `path`, in place of the one before."""
        self.attempt(path, lambda: obstore.put(self.store, self.key(path), data))

    def create(self, path: str, data: bytes) -> bool:
        """Writes the object at `path` unless there is one; returns whether it was written.

        A request that was repeated after a lost answer finds its own object: that counts as written
        when the bytes are the same, so what competes for a key must write different bytes.
        """

        def put() -> bool:
            try:
                obstore.put(self.store, self.key(path), data, mode="create")
            except BaseError as error:
                if fault_of(error) in (Fault.EXISTS, Fault.CHANGED):
                    return False
                raise
            return True

        return self.attempt(path, put) or self.read(path) == data

    def head(self, path: str) -> StoredObject | None:
        """Returns what storage says of the object at `path`, or nothing where there is none."""

        def ask() -> StoredObject | None:
            try:
                meta = obstore.head(self.store, self.key(path))
            except FileNotFoundError as error:
                if fault_of(error) is Fault.OBJECT_MISSING:
                    return None
                raise
            return StoredObject(path, meta["size"], meta["e_tag"] or "", meta["last_modified"])

        found = self.attempt(path, ask)
        if found is None:
            self.entries(path)  # Says so where the bucket is missing: HEAD has no words for it.
        return found

    def entries(self, path: str = "") -> list[StoredObject]:
        """Returns the objects below the folder `path`, sorted by path."""

        def stored() -> Iterator[StoredObject]:
            for batch in obstore.list(self.store, self.key(path) or None):
                for meta in batch:
                    name = meta["path"].removeprefix(self._prefix).strip("/")
                    yield StoredObject(
                        name, meta["size"], meta["e_tag"] or "", meta["last_modified"]
                    )

        return sorted(self.attempt(path, lambda: list(stored())), key=lambda each: each.path)

    def subfolders(self, path: str) -> list[str]:
        """Returns the names of the folders right below the folder `path`, sorted."""

        def names() -> list[str]:
            found = obstore.list_with_delimiter(self.store, self.key(path) or None)
            return sorted(prefix.rstrip("/").split("/")[-1] for prefix in found["common_prefixes"])

        return self.attempt(path, names)

    def delete(self, paths: list[str]) -> None:
        """Deletes the objects at `paths`; one that is not there is no error."""

        def remove() -> None:
            for path in paths:
                try:
                    obstore.delete(self.store, self.key(path))
                except FileNotFoundError as error:
                    if fault_of(error) is not Fault.OBJECT_MISSING:
                        raise

        if paths:
            self.attempt(paths[0], remove)

    def attempt(self, path: str, action: Callable[[], _T]) -> _T:
        """Does `action` on the object at `path`, again and again through an outage.

        Raises:
            ConfigError: The bucket does not exist or the account may not do this.
            DataError: The object does not exist or changed.
            StorageError: The outage lasted longer than `patience`.
        """
        deadline = time.monotonic() + self.patience
        pause = _FIRST_PAUSE
        while True:
            try:
                result = action()
            except (BaseError, FileNotFoundError, PermissionError) as error:
                fault = fault_of(error)
                heals = fault in OUTAGES or (self._worked and fault in KEY_FAULTS)
                if not heals or time.monotonic() + pause > deadline:
                    raise to_error(
                        fault,
                        self.uri_of(path),
                        field=self.field,
                        endpoint=self._endpoint,
                        detail=detail_of(error),
                        worked=self._worked,
                    ) from error
                time.sleep(pause)
                pause = min(2 * pause, 10.0)
            else:
                self._worked = True
                return result


def open_folder(
    uri: str,
    storage: Storage,
    *,
    field: str,
    secret_folder: Path = Path(SECRET_FOLDER),
    patience: float = PATIENCE,
) -> Folder:
    """Opens the folder at `uri`, which the field `field` of the spec names.

    Raises:
        ConfigError: The URI is neither `s3://` nor `file:///`.
    """
    if uri.startswith("file:///"):
        prefix = unquote(uri.removeprefix("file://"))
        return Folder(
            uri,
            LocalStore(),
            prefix,
            field=field,
            endpoint="this machine's file system",
            patience=patience,
        )
    if not uri.startswith("s3://"):
        raise ConfigError(field, f"{uri} is not a URI of storage", "use s3://bucket/path")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    endpoint = storage.endpoint or _setting("AWS_ENDPOINT_URL", secret_folder)
    region = storage.region or _setting("AWS_REGION", secret_folder) or _DEFAULT_REGION
    return Folder(
        uri,
        _open_bucket(bucket, region, endpoint, secret_folder),
        prefix,
        field=field,
        endpoint=endpoint or f"AWS in {region}",
        patience=patience,
    )


def _setting(name: str, secret_folder: Path) -> str | None:
    """Returns what the mounted Secret says of `name`, or else the environment."""
    file = secret_folder / name
    if file.exists():
        return file.read_text(encoding="utf-8").strip() or None
    return os.environ.get(name) or None


def _open_bucket(bucket: str, region: str, endpoint: str | None, secret_folder: Path) -> S3Store:
    plain_http = endpoint is not None and endpoint.startswith("http://")
    return S3Store(
        bucket,
        config={
            "region": region,
            "virtual_hosted_style_request": endpoint is None,
            # TLS protects the payload; over plain HTTP its hash is part of the signature.
            "unsigned_payload": not plain_http,
            "disable_bulk_delete": True,  # Not every server has it, and we delete little.
            **({"endpoint": endpoint} if endpoint else {}),
        },
        client_options={
            "allow_http": plain_http,
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=30),
            "timeout": timedelta(minutes=10),
        },
        # Short, since `Folder.attempt` goes on with fresh credentials.
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=15)},
        credential_provider=secret_reader(secret_folder) if secret_folder.is_dir() else None,
    )


def secret_reader(folder: Path) -> Callable[[], S3Credential]:
    """Returns a function that reads the account from a mounted Secret, one file per key."""

    def read() -> S3Credential:
        def value(name: str) -> str:
            return (folder / name).read_text(encoding="utf-8").strip()

        token = folder / "AWS_SESSION_TOKEN"
        return {
            "access_key_id": value("AWS_ACCESS_KEY_ID"),
            "secret_access_key": value("AWS_SECRET_ACCESS_KEY"),
            "token": value(token.name) if token.exists() else None,
            "expires_at": datetime.now(UTC) + _KEY_LIFETIME,
        }

    return read
