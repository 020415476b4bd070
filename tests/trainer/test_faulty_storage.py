"""The launcher against an S3 server that flips bits, cuts answers, refuses and changes its keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_s3 import FakeS3, Fault
from laptop import Laptop, fake_command

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_api.training import Storage
from llmtrain_trainer import (
    checkpoints,
    inputs,
    launcher,
    prepare,
    saver,
    stop,
    storage,
    torchrun,
    watch,
)
from llmtrain_trainer.storage import Folder, open_folder

DIGITS = "1234567890" * 100


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    for name, value in (("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_FIRST_PAUSE", 0.01)
    server = FakeS3()
    yield server
    server.close()


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: FakeS3) -> Laptop:
    monkeypatch.setattr(torchrun, "command", fake_command)
    monkeypatch.setenv("FAKE_PLAN", str(tmp_path / "plan.json"))
    for module in (stop, watch, saver, prepare):
        monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    made = Laptop(tmp_path)
    for path in (tmp_path / "model").iterdir():
        s3.objects[f"models/tiny/{path.name}"] = path.read_bytes()
    s3.objects["data/rows.jsonl"] = (tmp_path / "data" / "rows.jsonl").read_bytes()
    return made


def run_of(laptop: Laptop, s3: FakeS3, data: str = "s3://data/rows.jsonl") -> RunFile:
    return laptop.run(
        model={"uri": "s3://models/tiny/"},
        datasets=[{"uri": data, "format": "Alpaca"}],
        output={"uri": "s3://runs/first/"},
        storage={"endpoint": s3.url},
    )


def output_of(s3: FakeS3) -> Folder:
    return open_folder("s3://runs/first", Storage(endpoint=s3.url), field="output.uri", patience=5)


def test_a_run_on_s3(laptop: Laptop, s3: FakeS3) -> None:
    assert laptop.launch(run_of(laptop, s3)) is ExitClass.SUCCESS
    weights = s3.objects["runs/first/adapter/adapter_model.safetensors"]
    assert weights.decode() == DIGITS[:30]
    assert "runs/first/model/manifest.json" in s3.objects


@pytest.mark.parametrize("how", ["cut", "refuse"])
def test_answers_that_go_wrong_twice_are_asked_for_again(
    laptop: Laptop, s3: FakeS3, how: str
) -> None:
    s3.faults = [Fault(lambda method, path: method == "GET" and "model" in path, how, times=2)]
    fetched = inputs.fetch(
        run_of(laptop, s3), inputs.list_inputs(run_of(laptop, s3)), laptop.home / "x", print
    )
    assert fetched.model is not None
    for path in fetched.model.iterdir():
        assert path.read_bytes() == s3.objects[f"models/tiny/{path.name}"]


def test_a_data_set_is_looked_up_without_listing_its_neighbours(laptop: Laptop, s3: FakeS3) -> None:
    asked: list[tuple[str, str]] = []

    def note(method: str, path: str) -> bool:
        asked.append((method, path))
        return False

    s3.faults = [Fault(note, "refuse")]
    found = inputs.list_inputs(run_of(laptop, s3)).inputs[-1]
    assert (found.uri, found.size) == ("s3://data/rows.jsonl", len(s3.objects["data/rows.jsonl"]))
    assert [each for each in asked if each[1].startswith("data")] == [("HEAD", "data/rows.jsonl")]


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        pytest.param(
            "s3://data/none.jsonl",
            DataError,
            r"s3://data/none\.jsonl: there is no such object",
            id="a data set",
        ),
        pytest.param(
            "s3://nowhere/rows.jsonl",
            ConfigError,
            r"datasets\[0\]\.uri: bucket s3://nowhere does not exist",
            id="its bucket",
        ),
    ],
)
def test_what_is_not_in_storage_is_named(
    laptop: Laptop, s3: FakeS3, uri: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        inputs.list_inputs(run_of(laptop, s3, uri))


@pytest.mark.parametrize(
    ("times", "step"),
    [
        pytest.param(1, 20, id="flipped on the way: it is fetched again"),
        pytest.param(2, 10, id="flipped at rest: the one before is used"),
    ],
)
def test_a_flipped_bit_in_a_checkpoint(laptop: Laptop, s3: FakeS3, times: int, step: int) -> None:
    laptop.plan |= {"fail_at": 25, "how": 1}
    assert laptop.launch(run_of(laptop, s3)) is ExitClass.INTERNAL
    s3.faults = [
        Fault(lambda method, path: method == "GET" and "20-a1r0/state" in path, "flip", times)
    ]
    best = checkpoints.download_best(output_of(s3), laptop.home / "resume", print)
    assert best is not None
    assert best.line[0].step == step
    assert (best.folder / "state.txt").read_text() == DIGITS[:step]


def test_training_goes_on_through_an_outage_and_nothing_is_lost(
    laptop: Laptop, s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    monkeypatch.setattr(saver, "_RETRY_SECONDS", 0.1)
    laptop.plan |= {"steps": 60, "seconds": 0.02}
    node = laptop.node(run_of(laptop, s3))
    node.output.patience = 0.2
    outage = Fault(lambda method, path: True, "refuse", times=1_000_000)

    def fail_for_a_while() -> None:
        s3.faults = [outage]
        time.sleep(0.5)
        outage.times = 0

    laptop.once_training(fail_for_a_while)
    assert launcher.launch(node) is ExitClass.SUCCESS
    assert s3.objects["runs/first/adapter/adapter_model.safetensors"].decode() == DIGITS[:60]
    assert "runs/first/checkpoints/60-a1r0/manifest.json" in s3.objects
    log = b"".join(data for key, data in sorted(s3.objects.items()) if "/logs/node-0" in key)
    assert log.count(b"checkpoint 10-a1r0 is in storage") == 1
    assert log.count(b"says hello") == 1


def test_a_rotated_key_reaches_a_running_process(
    s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_KEY_LIFETIME", storage._KEY_LIFETIME / 1000)
    s3.accepted_key = "old"
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "AWS_ACCESS_KEY_ID").write_text("old")
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("x")
    (secret / "AWS_ENDPOINT_URL").write_text(s3.url)
    folder = open_folder(
        "s3://runs/x", Storage(), field="output.uri", secret_folder=secret, patience=5
    )
    folder.write("a", b"1")
    s3.accepted_key = "new"
    threading.Timer(0.3, lambda: (secret / "AWS_ACCESS_KEY_ID").write_text("new")).start()
    folder.write("a", b"2")
    assert s3.objects["runs/x/a"] == b"2"


def test_a_key_that_never_worked_is_a_mistake_in_the_secret(s3: FakeS3) -> None:
    s3.accepted_key = "another"
    with pytest.raises(ConfigError, match=r"storage\.secretName: .* does not accept the key"):
        output_of(s3).read("owner.json")
