"""The launcher as a process of its own, over real torchrun: signals, exit codes, two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from laptop import TRAINER_TESTS, Laptop

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer.torchrun import descendants

pytestmark = pytest.mark.torch

DIGITS = "1234567890" * 100


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


class Pod:
    """One node's launcher, as a pod would run it."""

    def __init__(self, laptop: Laptop, index: int = 0, **changes: Any) -> None:
        run_file = laptop.home / f"run-{index}.json"
        run_file.write_text(laptop.run(**changes).model_dump_json(by_alias=True))
        laptop.write_plan()
        self.output = laptop.home / f"output-{index}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "llmtrain_trainer", str(run_file)),
                    *("--scratch", str(laptop.home / f"pod-{index}")),
                    *("--termination-log", str(laptop.home / f"termination-{index}.json")),
                    *("--node", str(index), "--worker-module", "fake_worker"),
                ],
                env={
                    **os.environ,
                    "PYTHONPATH": str(TRAINER_TESTS),
                    "FAKE_PLAN": str(laptop.home / "plan.json"),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.home = laptop.home / f"pod-{index}"

    def wait_for_step(self) -> None:
        """Waits until the first step has been logged."""
        while not list(self.home.glob("*/node-*/work-*/trainer_log.jsonl")):
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.05)

    def end(self) -> ExitClass:
        """Waits for the end; returns the class of the exit code."""
        code = self.process.wait(120)
        by_code = {policy.code: exit_class for exit_class, policy in EXIT_POLICIES.items()}
        return by_code[code]


def test_sigterm_saves_a_checkpoint_and_the_next_attempt_goes_on(laptop: Laptop) -> None:
    laptop.plan |= {"steps": 1000, "save_every": 1000, "seconds": 0.02}
    pod = Pod(laptop)
    pod.wait_for_step()
    pod.process.send_signal(signal.SIGTERM)
    assert pod.end() is ExitClass.PREEMPTED, pod.output.read_text()
    (name,) = laptop.checkpoints()
    step = int(name.split("-")[0])
    laptop.plan |= {"steps": step + 10, "seconds": 0.001}
    assert Pod(laptop).end() is ExitClass.SUCCESS
    assert laptop.weights() == DIGITS[: step + 10]


def test_a_killed_process_is_told_by_rank_and_signal_and_nothing_stays_behind(
    laptop: Laptop,
) -> None:
    laptop.plan |= {"steps": 1000, "save_every": 1000, "seconds": 0.02}
    workers = {"processesPerNode": 2}
    pod = Pod(laptop, workers=workers)
    pod.wait_for_step()
    processes = descendants(pod.process.pid)
    os.kill(rank_of(processes, 1), signal.SIGKILL)
    assert pod.end() is ExitClass.INTERNAL
    verdict = laptop.verdict()
    assert (verdict.rank, verdict.message) == (1, "training process 1 was killed by signal 9")
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]


def rank_of(processes: list[int], rank: int) -> int:
    """Returns the process with that rank."""
    (found,) = [
        pid
        for pid in processes
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        and b"fake_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def test_two_nodes_meet_and_end_together(laptop: Laptop) -> None:
    changes: dict[str, Any] = {"workers": {"nodes": 2}, "top": {"attempt": 1, "uid": "a"}}
    pods = [Pod(laptop, index, **changes) for index in (1, 0)]
    assert [pod.end() for pod in pods] == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    assert laptop.weights() == DIGITS[:30]
