from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from llmtrain_api.errors import ConfigError, DataError, LLMTrainError, StorageError
from llmtrain_api.training import Storage
from llmtrain_trainer import storage, transfer
from llmtrain_trainer.storage import Folder, open_folder, secret_reader
from llmtrain_trainer.storage_errors import Fault, detail_of, fault_of, to_error


def answer(code: str, status: str = "403 Forbidden") -> str:
    """Returns the text of an error as obstore makes it of a server's answer."""
    return (
        f"Generic S3 error: Error performing GET http://s3/runs/x in 1ms - Server returned non-2xx"
        f" status code: {status}: <Error><Code>{code}</Code><Message>Words.</Message></Error>\n\n"
        "Debug source:\nGeneric { ... }"
    )


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        pytest.param(FileNotFoundError(answer("NoSuchKey")), Fault.OBJECT_MISSING, id="no object"),
        pytest.param(FileNotFoundError("No such file"), Fault.OBJECT_MISSING, id="no file"),
        pytest.param(
            FileNotFoundError(answer("NoSuchBucket")),
            Fault.BUCKET_MISSING,
            id="no bucket, by a read",
        ),
        pytest.param(
            GenericError(answer("NoSuchBucket")), Fault.BUCKET_MISSING, id="no bucket, by a listing"
        ),
        pytest.param(GenericError(answer("AccessDenied")), Fault.DENIED, id="denied, by a listing"),
        pytest.param(PermissionDeniedError("403: "), Fault.DENIED, id="denied without a body"),
        pytest.param(
            PermissionDeniedError(answer("SignatureDoesNotMatch")),
            Fault.WRONG_KEY,
            id="wrong secret",
        ),
        pytest.param(
            PermissionDeniedError(answer("InvalidAccessKeyId")), Fault.WRONG_KEY, id="unknown key"
        ),
        pytest.param(
            GenericError("PUT http://169.254.169.254/latest"), Fault.NO_KEY, id="no account at all"
        ),
        pytest.param(GenericError("kind: Connect"), Fault.UNREACHABLE, id="nobody listens"),
        pytest.param(
            GenericError(answer("InternalError")), Fault.BROKEN, id="the server is broken"
        ),
    ],
)
def test_faults_are_told_apart(error: BaseException, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("fault", "worked", "kind", "words"),
    [
        pytest.param(
            Fault.BUCKET_MISSING,
            False,
            ConfigError,
            "model.uri: bucket s3://models does not exist at",
        ),
        pytest.param(
            Fault.OBJECT_MISSING, False, DataError, "s3://models/x: there is no such object"
        ),
        pytest.param(
            Fault.DENIED, False, ConfigError, "model.uri: access to s3://models/x is denied"
        ),
        pytest.param(Fault.WRONG_KEY, False, ConfigError, "storage.secretName: http://s3 does not"),
        pytest.param(Fault.NO_KEY, False, ConfigError, "storage.secretName: no account"),
        pytest.param(Fault.WRONG_REGION, False, ConfigError, "storage.region: s3://models is in"),
        pytest.param(
            Fault.UNREACHABLE, False, StorageError, "s3://models/x: http://s3 does not answer"
        ),
        pytest.param(Fault.BROKEN, False, StorageError, "s3://models/x: http://s3 failed"),
        pytest.param(Fault.DENIED, True, StorageError, "the account is no longer accepted"),
        pytest.param(Fault.WRONG_KEY, True, StorageError, "the account is no longer accepted"),
    ],
)
def test_a_fault_becomes_an_error_that_names_the_place(
    fault: Fault, worked: bool, kind: type[LLMTrainError], words: str
) -> None:
    error = to_error(
        fault, "s3://models/x", field="model.uri", endpoint="http://s3", detail="d", worked=worked
    )
    assert type(error) is kind
    assert words in str(error)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(f"file://{tmp_path}/a b", Storage(), field="output.uri", patience=0.1)


def test_what_is_written_is_read(folder: Folder) -> None:
    folder.write("deep/er/x", b"1")
    assert folder.read("deep/er/x") == b"1"
    assert folder.read("deep/er/y") is None
    assert [entry.path for entry in folder.entries()] == ["deep/er/x"]
    assert folder.subfolders("deep") == ["er"]


def test_an_object_is_created_once(folder: Folder) -> None:
    assert folder.create("owner.json", b"first")
    assert not folder.create("owner.json", b"second")
    assert folder.read("owner.json") == b"first"


def test_creating_the_same_bytes_again_counts_as_a_repeated_request(folder: Folder) -> None:
    assert folder.create("owner.json", b"first")
    assert folder.create("owner.json", b"first")


def test_deleting_what_is_not_there_is_no_error(folder: Folder) -> None:
    folder.write("x", b"1")
    folder.delete(["x", "y"])
    assert folder.entries() == []


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 10_001])
def test_a_file_goes_to_storage_and_back(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(transfer, "_PIECE", 1000)
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(os.urandom(size))
    written, digest = transfer.upload(folder, "x", source)
    assert written == size
    told: list[int] = []
    assert transfer.download(folder, "x", target, size=size, tell=told.append) == digest
    assert digest == transfer.sha256_of(source)
    assert target.read_bytes() == source.read_bytes()
    assert sum(told) == size


def test_an_object_that_changed_since_it_was_listed_is_refused(
    folder: Folder, tmp_path: Path
) -> None:
    folder.write("x", b"old")
    (entry,) = folder.entries()
    folder.write("x", b"new")
    with pytest.raises(DataError, match="x: it changed since the run began"):
        transfer.download(folder, "x", tmp_path / "x", size=3, etag=entry.etag)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(answer("AccessDenied"), "AccessDenied (Words)", id="of the server"),
        pytest.param(
            "Generic S3 error: Error performing GET x - HTTP error: error sending request\n\n"
            'ConnectError("tcp", 1.2.3.4:1, Os { code: 111, message: "Connection refused" })',
            "Connection refused",
            id="of the system",
        ),
        pytest.param(
            "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token - x",
            "neither a Secret nor the environment nor the machine has one",
            id="of the search for an account",
        ),
        pytest.param(
            "Generic S3 error: Error performing GET x - HTTP error: request timed out",
            "HTTP error: request timed out",
            id="of the client",
        ),
    ],
)
def test_the_words_of_an_error(text: str, words: str) -> None:
    assert detail_of(GenericError(text)) == words


class Flaky:
    """An action that fails a number of times before it works."""

    def __init__(self, failures: int, error: BaseException) -> None:
        self.left = failures
        self.error = error

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PAUSE", 0.001)


@pytest.mark.usefixtures("no_pause")
def test_an_outage_is_waited_out(folder: Folder) -> None:
    folder.patience = 5
    assert folder.attempt("x", Flaky(3, GenericError("kind: Connect"))) == "done"


@pytest.mark.usefixtures("no_pause")
def test_a_long_outage_is_an_error(folder: Folder) -> None:
    folder.patience = 0.01
    with pytest.raises(StorageError, match="does not answer"):
        folder.attempt("x", Flaky(99, GenericError("kind: Connect")))


@pytest.mark.usefixtures("no_pause")
def test_a_refusal_is_an_error_at_once(folder: Folder) -> None:
    denied = Flaky(1, PermissionDeniedError(answer("AccessDenied")))
    with pytest.raises(ConfigError, match=r"access to .* is denied: AccessDenied \(Words\)"):
        folder.attempt("x", denied)


@pytest.mark.usefixtures("no_pause")
def test_a_refusal_after_the_account_has_worked_is_a_rotation_and_waited_out(
    folder: Folder,
) -> None:
    folder.patience = 5
    folder.write("x", b"")
    denied = Flaky(2, PermissionDeniedError(answer("InvalidAccessKeyId")))
    assert folder.attempt("x", denied) == "done"


def test_the_secret_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a\n"), ("AWS_SECRET_ACCESS_KEY", "b")):
        (tmp_path / name).write_text(value)
    read = secret_reader(tmp_path)
    assert (read()["access_key_id"], read()["token"]) == ("a", None)
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("c")
    (tmp_path / "AWS_SESSION_TOKEN").write_text("t")
    assert (read()["access_key_id"], read()["token"]) == ("c", "t")


@pytest.mark.parametrize(
    ("spec", "secret", "environment", "endpoint"),
    [
        pytest.param(
            "http://spec", "http://secret", "http://env", "http://spec", id="the spec wins"
        ),
        pytest.param(None, "http://secret", "http://env", "http://secret", id="then the Secret"),
        pytest.param(None, None, "http://env", "http://env", id="then the environment"),
        pytest.param(None, None, None, None, id="without any it is AWS"),
    ],
)
def test_where_the_endpoint_comes_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str | None,
    secret: str | None,
    environment: str | None,
    endpoint: str | None,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if environment:
        monkeypatch.setenv("AWS_ENDPOINT_URL", environment)
    if secret:
        (tmp_path / "AWS_ENDPOINT_URL").write_text(secret)
    opened = open_folder(
        "s3://runs/x", Storage(endpoint=spec), field="output.uri", secret_folder=tmp_path
    )
    assert opened.store.config.get("endpoint") == endpoint  # type: ignore[union-attr]


def test_a_uri_of_no_storage_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.uri: hf://x is not a URI of storage"):
        open_folder("hf://x", Storage(), field="model.uri")
