"""Prepared tokens in storage: whole or not there, verified, and harmless to write twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_s3 import FakeS3, Fault
from specs import changed, good

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_api.training import Storage
from llmtrain_trainer import storage, tokencache, transfer
from llmtrain_trainer.storage import Folder, open_folder

NAME = "0123abcd"
FILES = {"train.tokens": b"tokens" * 1000, "train.json": b"{}", "account.json": b'{"key": "x"}'}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    for name, value in (("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_FIRST_PAUSE", 0.01)
    server = FakeS3()
    yield server
    server.close()


@pytest.fixture
def cache(s3: FakeS3) -> Folder:
    return open_folder("s3://runs/cache/", Storage(endpoint=s3.url), field="prepare.cacheUri")


def made(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """Returns a folder of tokens."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def fetch(cache: Folder, target: Path) -> bool:
    return tokencache.fetch(cache, NAME, target, lambda message: None)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_stored_is_fetched(cache: Folder, tmp_path: Path) -> None:
    assert not fetch(cache, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    tokencache.store(cache, NAME, made(tmp_path / "old"))
    assert fetch(cache, tmp_path / "new")
    assert content(tmp_path / "new") == FILES


def test_the_manifest_is_written_last_and_the_account_comes_last(
    cache: Folder, s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    create = Folder.create

    def noted(folder: Folder, path: str, data: bytes) -> bool:
        written.extend(s3.objects)
        return create(folder, path, data)

    monkeypatch.setattr(Folder, "create", noted)
    tokencache.store(cache, NAME, made(tmp_path / "old"))
    assert len(written) == len(FILES)
    assert not any(key.endswith("manifest.json") for key in written)
    order: list[str] = []

    def seen(folder: Folder, path: str, target: Path, **options: object) -> str:
        order.append(target.name)
        return str(transfer.download(folder, path, target, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(tokencache, "download", seen)
    assert fetch(cache, tmp_path / "new")
    assert order[-1] == "account.json.unverified"


def test_two_writers_of_one_name_do_not_meet(cache: Folder, s3: FakeS3, tmp_path: Path) -> None:
    others = {**FILES, "train.tokens": b"other!" * 1000}  # As another version of Arrow writes it.
    folders = [made(tmp_path / "a"), made(tmp_path / "b", others)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda folder: tokencache.store(cache, NAME, folder), folders))
    assert sum(key.endswith("manifest.json") for key in s3.objects) == 1
    assert fetch(cache, tmp_path / "new")
    assert content(tmp_path / "new") in (FILES, others)


def test_tokens_that_are_there_are_not_stored_again(
    cache: Folder, s3: FakeS3, tmp_path: Path
) -> None:
    tokencache.store(cache, NAME, made(tmp_path / "a"))
    before = dict(s3.objects)
    tokencache.store(cache, NAME, made(tmp_path / "b", {"account.json": b"other"}))
    assert s3.objects == before


def test_a_bit_that_flips_on_the_way_is_mended(cache: Folder, s3: FakeS3, tmp_path: Path) -> None:
    tokencache.store(cache, NAME, made(tmp_path / "old"))
    s3.faults.append(Fault(lambda method, path: "train.tokens" in path, "flip"))
    assert fetch(cache, tmp_path / "new")
    assert content(tmp_path / "new") == FILES


def test_damaged_tokens_are_told_and_written_anew(
    cache: Folder, s3: FakeS3, tmp_path: Path
) -> None:
    tokencache.store(cache, NAME, made(tmp_path / "old"))
    key = next(key for key in s3.objects if key.endswith("-train.tokens"))
    s3.objects[key] = b"X" + s3.objects[key][1:]
    with pytest.raises(DataError, match=r"-train.tokens: its SHA-256 is .*: the tokens are made"):
        fetch(cache, tmp_path / "new")
    assert not (tmp_path / "new" / "account.json").exists()
    tokencache.forget(cache, NAME)
    tokencache.store(cache, NAME, tmp_path / "old")
    assert fetch(cache, tmp_path / "new")


def test_half_deleted_tokens_are_told(cache: Folder, s3: FakeS3, tmp_path: Path) -> None:
    tokencache.store(cache, NAME, made(tmp_path / "old"))
    del s3.objects[next(key for key in s3.objects if key.endswith("-train.tokens"))]
    with pytest.raises(DataError, match=r"-train.tokens"):
        fetch(cache, tmp_path / "new")


@pytest.mark.parametrize(
    ("prepare", "uri", "field"),
    [
        pytest.param(
            {"cacheUri": "s3://data/tokens/"}, "s3://data/tokens", "prepare.cacheUri", id="shared"
        ),
        pytest.param({}, "s3://runs/good/tokens", "output.uri", id="of this run alone"),
    ],
)
def test_the_place_is_what_the_spec_says(prepare: dict[str, str], uri: str, field: str) -> None:
    spec = RunSpec.model_validate(changed(good(), "prepare", prepare))
    found = tokencache.open_cache(spec)
    assert (found.uri, found.field) == (uri, field)


def test_a_cache_without_a_bucket_is_named_by_its_field(s3: FakeS3, tmp_path: Path) -> None:
    lost = open_folder("s3://nowhere/", Storage(endpoint=s3.url), field="prepare.cacheUri")
    with pytest.raises(ConfigError, match=r"^prepare.cacheUri: "):
        fetch(lost, tmp_path)
