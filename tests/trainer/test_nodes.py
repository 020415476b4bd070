"""Two processes, as on two nodes: they stop at the same step, and notice a lost peer."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import jobs
import pytest

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer.workdir import RankFailure

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


def start_and_wait_for_steps(
    tiny_model: Path, tmp_path: Path
) -> tuple[list[Path], list[subprocess.Popen[bytes]]]:
    """Returns the folders and processes of a long run that has begun to train."""
    changes = {"workers.nodes": 2, "training.maxSteps": 100_000}
    folders = [jobs.write_job(tmp_path / str(node), tiny_model, changes) for node in range(2)]
    processes = jobs.start_nodes(folders)
    log = folders[0] / "trainer_log.jsonl"
    while not log.exists() or not log.read_text():
        for folder, process in zip(folders, processes, strict=True):
            assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.2)
    return folders, processes


def test_all_stop_at_the_same_step_when_one_node_is_told_to(
    tiny_model: Path, tmp_path: Path
) -> None:
    folders, processes = start_and_wait_for_steps(tiny_model, tmp_path)
    (folders[1] / "stop").touch()
    code = EXIT_POLICIES[ExitClass.PREEMPTED].code
    assert [process.wait(60) for process in processes] == [code, code]
    step = json.loads((folders[0] / "preempted").read_text())["step"]
    checkpoint = f"out/checkpoint-{step}"
    assert {path.name for path in (folders[1] / checkpoint).iterdir()} == {
        ".saved-rank-1",
        "rng_state_1.pth",
    }
    assert (folders[0] / checkpoint / ".saved-rank-0").is_file()
    assert (folders[0] / checkpoint / "adapter_model.safetensors").is_file()
    assert not (folders[0] / checkpoint / "rng_state_1.pth").exists()


def test_a_process_whose_peer_is_killed_says_so_and_ends(tiny_model: Path, tmp_path: Path) -> None:
    folders, processes = start_and_wait_for_steps(tiny_model, tmp_path)
    processes[1].kill()
    assert processes[0].wait(60) == EXIT_POLICIES[ExitClass.PEER_LOST].code
    told = RankFailure.model_validate_json((folders[0] / "failure-rank-0.json").read_bytes())
    assert told.exit_class is ExitClass.PEER_LOST
    assert told.step is not None
    assert told.step >= 1
    processes[1].wait(60)
