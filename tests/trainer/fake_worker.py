"""Stands in for the training processes: keeps their side of the contract, without torch.

What it does is in the file FAKE_PLAN, JSON: `steps`, `save_every`, `seconds` per step, and for
failures `fail_at` with `how` (a Python exit code, `kill`, `speak`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from llmtrain_api.exits import ExitClass
from llmtrain_trainer import workdir
from llmtrain_trainer.workdir import Activity, Job, RankFailure, write_atomically


def main() -> int:
    folder = Path(sys.argv[1])
    rank = int(os.environ.get("RANK", "0"))
    plan = json.loads(Path(os.environ["FAKE_PLAN"]).read_text())
    job = Job.model_validate_json((folder / workdir.JOB).read_text())
    threads = os.environ["OMP_NUM_THREADS"]
    sys.stdout.write(f"worker {rank} says hello with {threads} threads\n")
    state = ""
    step = 0
    if job.resume_from:
        state = (Path(job.resume_from) / "state.txt").read_text()
        step = len(state)
    act(folder, rank, "Training")
    while step < plan["steps"]:
        time.sleep(plan.get("seconds", 0.01))
        step += 1
        state += str(step % 10)
        if step == plan.get("fail_at") and job.run.attempt == plan.get("fail_attempt", 1):
            return fail(folder, rank, step, plan["how"])
        if rank == 0:
            log(folder, step, plan["steps"])
        stopping = (folder / workdir.STOP).exists() and not plan.get("deaf")
        if step % plan.get("save_every", 10) == 0 or stopping:
            save(folder, rank, step, state)
        if stopping:
            if rank == 0:
                (folder / workdir.PREEMPTED).touch()
            return 85
    if rank == 0:
        finish(folder, state)
    return 0


def act(folder: Path, rank: int, activity: str) -> None:
    if rank == 0:
        text = Activity.model_validate({"activity": activity}).model_dump_json()
        write_atomically(folder / workdir.ACTIVITY, text)


def log(folder: Path, step: int, total: int) -> None:
    line = {"current_steps": step, "total_steps": total, "loss": 1 / step, "seconds_per_step": 0.01}
    with (folder / workdir.TRAINER_LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def save(folder: Path, rank: int, step: int, state: str) -> None:
    checkpoint = folder / workdir.checkpoint_folder(step)
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / f"rng_state_{rank}.pth").write_text(f"{rank} {step}")
    if rank == 0:
        (checkpoint / "state.txt").write_text(state)
    (checkpoint / workdir.saved_marker(rank)).touch()


def fail(folder: Path, rank: int, step: int, how: object) -> int:
    sys.stdout.write("the end is near\n")
    if isinstance(how, int):
        return how
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    failure = RankFailure(
        exit_class=ExitClass.DIVERGED,
        message="the loss is NaN",
        exception="Diverged",
        rank=rank,
        step=step,
        time=datetime.now(UTC).isoformat(),
    )
    write_atomically(folder / workdir.failure_file(rank), failure.model_dump_json(by_alias=True))
    return 83


def finish(folder: Path, state: str) -> None:
    final = folder / workdir.FINAL
    for name, text in (
        ("adapter/adapter_model.safetensors", state),
        ("model/README.md", "# card"),
        ("results/all_results.json", "{}"),
        ("plots/training_loss.png", "png"),
    ):
        path = final / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (final / workdir.DONE).touch()


if __name__ == "__main__":
    sys.exit(main())
