"""The launcher over a command of the user's own, on files, without torchrun."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from laptop import TRAINER_TESTS, Laptop

from llmtrain_api.exits import ExitClass
from llmtrain_trainer import custom, launcher, node, prepare, saver, stop, watch
from llmtrain_trainer.torchrun import descendants

DIGITS = "1234567890" * 100
SCRIPT = (TRAINER_TESTS / "own_script.py").read_text()


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    for module in (watch, node):  # Two nodes in one process would take each other's children.
        monkeypatch.setattr(module, "reap", lambda own: None)
    for module in (stop, watch, saver, prepare):
        monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(custom, "QUIET_SECONDS", 0.1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none of its business")
    return Laptop(tmp_path)


def weights(laptop: Laptop, rank: int = 0) -> str:
    return (laptop.out / "model" / f"weights-{rank}").read_text()


def test_a_command_reads_its_inputs_and_leaves_its_results(laptop: Laptop) -> None:
    node = laptop.node(laptop.command(SCRIPT, "30"))
    assert launcher.launch(node) is ExitClass.SUCCESS, laptop.verdict()
    manifest = json.loads((laptop.out / "model" / "manifest.json").read_text())
    assert {file["path"] for file in manifest["files"]} == {
        "model/report.json",
        "model/weights-0",
        "provenance.json",
        "results/trainer_log.jsonl",
    }
    assert weights(laptop) == DIGITS[:30]
    report = json.loads((laptop.out / "model" / "report.json").read_text())
    assert report["data"] == ["rows.jsonl"]
    assert "model.safetensors" in report["model"]
    assert report["aws"] == []
    assert laptop.checkpoints() == ["20-a1r0", "30-a1r0"]
    progress = node.reporter.report.progress
    assert progress is not None
    assert (progress.step, progress.total_steps) == (30, 30)
    log = (laptop.out / "results" / "trainer_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["current_steps"] for line in log] == list(range(1, 31))


def test_a_failed_command_goes_on_from_its_last_checkpoint(laptop: Laptop) -> None:
    run = laptop.command(SCRIPT, "30", "25", "7")
    assert laptop.launch(run) is ExitClass.INTERNAL
    verdict = laptop.verdict()
    assert verdict.message == "training process 0 ended with exit code 7"
    assert verdict.last_lines == ["the end is near"]
    assert (verdict.rank, verdict.step, verdict.latest_checkpoint) == (0, 24, "20-a1r0")
    assert laptop.launch(run) is ExitClass.SUCCESS
    assert weights(laptop) == DIGITS[:30]
    assert laptop.checkpoints() == ["20-a1r0", "30-a2r0"]
    log = (laptop.out / "results" / "trainer_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["current_steps"] for line in log] == list(range(1, 31))


def test_a_finished_command_is_not_run_again(laptop: Laptop) -> None:
    run = laptop.command(SCRIPT, "10")
    laptop.launch(run)
    assert laptop.launch(run) is ExitClass.SUCCESS
    assert "already trained" in laptop.verdict().message


@pytest.mark.parametrize(
    ("script", "exit_class", "message"),
    [
        pytest.param(
            "raise SystemExit(83)",
            ExitClass.DIVERGED,
            "training process 0 ended with exit code 83",
            id="the code of a class says the class",
        ),
        pytest.param(
            "raise SystemExit(85)",
            ExitClass.INTERNAL,
            "training process 0 ended with exit code 85",
            id="that it was stopped it cannot say itself",
        ),
        pytest.param(
            "raise MemoryError('no more')",
            ExitClass.OUT_OF_MEMORY,
            "training process 0 ended with exit code 1",
            id="its last lines speak of memory",
        ),
        pytest.param(
            "import os; os.kill(os.getpid(), 9)",
            ExitClass.INTERNAL,
            "training process 0 was killed by signal 9",
            id="a signal",
        ),
        pytest.param(
            "pass",
            ExitClass.CONFIG,
            "custom.command: it ended well, but left nothing in the folder LLMTRAIN_OUTPUT_DIR:"
            " have it write its results there",
            id="no results",
        ),
    ],
)
def test_how_a_command_ended_is_told(
    laptop: Laptop, script: str, exit_class: ExitClass, message: str
) -> None:
    assert laptop.launch(laptop.command(script)) is exit_class
    assert laptop.verdict().message == message


def test_a_program_that_is_not_there_is_told_by_its_name(laptop: Laptop) -> None:
    run = laptop.command("", custom={"command": ["trian", "x"], "launcher": "None"})
    assert laptop.launch(run) is ExitClass.CONFIG
    assert laptop.verdict().message == (
        "custom.command: trian cannot be run: No such file or directory: name a program of the"
        " image in workers.image, or the full path of one"
    )


def test_an_order_to_stop_reaches_the_command_which_saves(laptop: Laptop) -> None:
    node = laptop.node(laptop.command(SCRIPT, "1000"))
    laptop.once_training(node.stop.order)
    assert launcher.launch(node) is ExitClass.PREEMPTED
    assert laptop.verdict().message == "told to stop: the command was ended"
    assert not (laptop.out / "model").exists(), "its exit code 0 does not mean that it was done"
    name = laptop.checkpoints()[-1]
    saved = (laptop.out / "checkpoints" / name / "weights").read_text()
    assert saved == DIGITS[: int(name.split("-")[0])]
    assert laptop.verdict().latest_checkpoint == name


def test_a_command_that_does_not_obey_is_killed_with_all_that_it_started(laptop: Laptop) -> None:
    script = (
        "import pathlib, signal, subprocess, sys, os\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path(os.environ['LLMTRAIN_OUTPUT_DIR'], 'pid').write_text(str(child.pid))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "child.wait()\nsignal.pause()\n"
    )
    flag = laptop.home / "begun"
    run = laptop.command(script, str(flag), workers={"terminationGracePeriodSeconds": 10})
    node = laptop.node(run)
    node.stop.grace_seconds = 2.0

    def order() -> None:
        while not flag.exists():
            time.sleep(0.02)
        node.stop.order()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(order)
        assert launcher.launch(node) is ExitClass.PREEMPTED
    assert descendants(node.child) == []


def test_two_nodes_run_the_command_once_each(laptop: Laptop) -> None:
    run = laptop.command(SCRIPT, "10", workers={"nodes": 2})
    run = run.model_copy(update={"attempt": 1})
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda index: laptop.launch(run, index), (0, 1)))
    assert ends == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    assert weights(laptop) == DIGITS[:10]
    assert not (laptop.out / "model" / "weights-1").exists(), "results are those of node 0"
    assert laptop.checkpoints() == ["10-a1r0"]
    manifest = json.loads((laptop.out / "checkpoints" / "10-a1r0" / "manifest.json").read_text())
    assert {file["node"] for file in manifest["files"]} == {0, 1}
    assert "samples" not in manifest
