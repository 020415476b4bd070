"""A command under real torchrun: a script of one's own, and the Trainer script of the examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from laptop import TRAINER_TESTS, Laptop
from tiny import alpaca_rows, jsonl

from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_trainer import custom, launcher, node, watch
from llmtrain_trainer.torchrun import descendants

pytestmark = pytest.mark.torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom-run.yaml"
DIGITS = "1234567890" * 100
SCRIPT = (TRAINER_TESTS / "own_script.py").read_text()


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    for module in (watch, node):
        monkeypatch.setattr(module, "reap", lambda own: None)
    monkeypatch.setattr(custom, "QUIET_SECONDS", 0.1)
    return Laptop(tmp_path)


def under_torchrun(run: RunFile, processes: int) -> RunFile:
    """Returns a run whose command torchrun starts so many times."""
    spec = run.spec.to_dict()
    spec["custom"] |= {"launcher": "Torchrun"}
    spec["workers"] |= {"processesPerNode": processes}
    return RunFile.model_validate({**run.to_dict(), "spec": spec})


def test_torchrun_starts_a_command_as_often_as_wanted(laptop: Laptop) -> None:
    run = under_torchrun(laptop.command(SCRIPT, "30", "25", "83"), 2)
    assert laptop.launch(run) is ExitClass.DIVERGED, laptop.verdict()
    assert laptop.verdict().last_lines == ["the end is near"]
    # The other process saves once more when it is told to stop, wherever it is by then.
    assert laptop.checkpoints()
    assert laptop.launch(run) is ExitClass.SUCCESS
    for rank in (0, 1):
        assert (laptop.out / "model" / f"weights-{rank}").read_text() == DIGITS[:30]


def test_torchrun_passes_the_order_to_stop_on(laptop: Laptop) -> None:
    started = laptop.node(under_torchrun(laptop.command(SCRIPT, "1000"), 2))
    laptop.once_training(started.stop.order)
    assert launcher.launch(started) is ExitClass.PREEMPTED
    assert laptop.verdict().message == "told to stop: the command was ended"
    name = laptop.checkpoints()[-1]
    saved = (laptop.out / "checkpoints" / name / "weights").read_text()
    assert saved == DIGITS[: int(name.split("-")[0])]
    assert descendants(started.child) == []


def test_an_unmodified_trainer_script_reports_and_is_saved(
    laptop: Laptop, tiny_model: Path
) -> None:
    config_map, manifest = yaml.safe_load_all(EXAMPLE.read_text())
    run = trainer_run(laptop, tiny_model, config_map["data"]["train.py"], manifest["spec"])
    started = laptop.node(run)
    assert launcher.launch(started) is ExitClass.SUCCESS, laptop.verdict()
    assert laptop.checkpoints() == ["3-a1r0", "6-a1r0"]
    report = started.reporter.report
    assert report.progress is not None
    assert (report.progress.step, report.progress.total_steps) == (6, 6)
    assert report.progress.loss is not None
    assert report.artifacts is not None
    assert report.artifacts.model == f"file://{laptop.out}/model/"
    assert (laptop.out / "model" / "model.safetensors").exists()
    results = json.loads((laptop.out / "results" / "all_results.json").read_text())
    assert results["train_loss"] > 0
    assert not list((laptop.out / "model").glob("checkpoint-*"))


def trainer_run(laptop: Laptop, model: Path, script: str, spec: dict[str, Any]) -> RunFile:
    """Returns the run of the example on the tiny model, for six steps on this machine."""
    rows = laptop.home / "data" / "docstrings-train.jsonl"
    rows.write_bytes(jsonl(alpaca_rows(40)))
    words = {"--max_steps": "6", "--logging_steps": "1", "--use_cpu": "True"}
    kept = [word for word in spec["custom"]["args"] if word.partition("=")[0] not in words]
    run = laptop.command(script, *kept, *(f"{name}={value}" for name, value in words.items()))
    changed = run.spec.to_dict() | {
        "model": {"uri": f"file://{model}"},
        "datasets": [{"uri": f"file://{rows}", "format": "Any"}],
        "checkpoint": {"everySteps": 3},
    }
    changed["custom"] |= {"launcher": "Torchrun"}
    return RunFile.model_validate({**run.to_dict(), "spec": changed})
