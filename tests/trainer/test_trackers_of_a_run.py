"""A run with trackers through the launcher: what they get, and that they cannot do any harm."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from laptop import TRAINER_TESTS, Laptop, fake_command

from llmtrain_api.exits import ExitClass
from llmtrain_trainer import node, prepare, saver, stop, torchrun, watch
from llmtrain_trainer.tracking import processes

TRACKING = {"wandb": {"project": "x", "secretName": "keys"}}


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.setattr(torchrun, "command", fake_command)
    for module in (watch, node):
        monkeypatch.setattr(module, "reap", lambda own: None)
    for module in (stop, watch, saver, prepare):
        monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(processes, "MODULE", "fake_tracker")
    monkeypatch.setattr(processes, "PATIENCE", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(TRAINER_TESTS))
    monkeypatch.setenv("FAKE_PLAN", str(tmp_path / "plan.json"))
    monkeypatch.setenv("FAKE_TRACKER_TOLD", str(tmp_path / "told.json"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "another secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a third")
    return Laptop(tmp_path)


def results(laptop: Laptop) -> dict[str, object]:
    content: dict[str, object] = json.loads(
        (laptop.out / "results" / "all_results.json").read_text()
    )
    return content


def test_a_tracker_is_told_to_the_end_and_sees_its_own_key_alone(
    laptop: Laptop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_TRACKER", "good")
    assert laptop.launch(laptop.run(tracking=TRACKING)) is ExitClass.SUCCESS
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {"end": "Succeeded", "lines": 30, "keys": ["WANDB_API_KEY"]}
    assert "warnings" not in results(laptop)
    assert "wandb is good" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("how", "why"),
    [
        pytest.param("deaf", "it took more than 1 s", id="that hangs"),
        pytest.param("broken", "ImportError: no such symbol", id="that dies"),
    ],
)
def test_a_run_succeeds_in_time_beside_a_tracker(
    how: str, why: str, laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRACKER", how)
    begin = time.monotonic()
    assert laptop.launch(laptop.run(tracking=TRACKING)) is ExitClass.SUCCESS
    assert time.monotonic() - begin < 20
    expected = (
        f"wandb was not told of all of this run ({why}); results/trainer_log.jsonl and tensorboard/"
        " have everything"
    )
    assert results(laptop)["warnings"] == [expected]
    assert laptop.verdict().exit_class is ExitClass.SUCCESS
    assert list((laptop.out / "tensorboard").iterdir())


def test_a_key_that_is_missing_ends_the_run_before_it_trains(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert laptop.launch(laptop.run(tracking=TRACKING)) is ExitClass.CONFIG
    assert "there is no WANDB_API_KEY" in laptop.verdict().message


def test_the_training_processes_do_not_see_the_keys(laptop: Laptop) -> None:
    place = torchrun.Place(laptop.run(tracking=TRACKING), 1, 0, 0)
    folder = laptop.home / "work"
    folder.mkdir()
    gang = torchrun.start(place, folder, cores=1)
    try:
        environment = Path(f"/proc/{gang.process.pid}/environ").read_bytes()
    finally:
        gang.kill()
    assert b"secret" not in environment
