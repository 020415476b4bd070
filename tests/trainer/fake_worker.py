"""Stands in for a training process: keeps its side of the contract, and imports nothing but Python.

What it does is in the JSON file FAKE_PLAN: `steps`, `save_every`, `seconds` per step, and for
failures `fail_at` with `how` (an exit code, `kill`, `speak`); `deaf` ignores the order to stop,
`forget` leaves the results unfinished; `tokens` (seconds) has tokens made first, or waited for.
The "weights" are one digit per step, so that a repeated or missing step shows.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
RANK = int(os.environ.get("RANK", "0"))
PREEMPTED = 85


def main() -> int:
    plan = json.loads(Path(os.environ["FAKE_PLAN"]).read_text())
    while not (FOLDER / "job.json").exists():
        time.sleep(0.01)
    job = json.loads((FOLDER / "job.json").read_text())
    threads = os.environ["OMP_NUM_THREADS"]
    sys.stdout.write(f"worker {RANK} says hello with {threads} threads\n")
    sys.stdout.flush()
    if "tokens" in plan:
        tokens(plan["tokens"], job["makesTokens"])
    if job["run"].get("task") == "Prepare":
        return 0
    weights = ""
    if job.get("resumeFrom"):
        weights = (Path(job["resumeFrom"]) / "state.txt").read_text()
    write("activity.json", {"activity": "Training", "message": ""})
    for step in range(len(weights) + 1, plan["steps"] + 1):
        time.sleep(plan.get("seconds", 0.005))
        weights += str(step % 10)
        if step == plan.get("fail_at") and not job.get("resumeFrom"):
            return fail(step, plan["how"])
        (FOLDER / "trained").touch()
        log(step, plan["steps"])
        stopping = (FOLDER / "stop").exists() and not plan.get("deaf")
        if step % plan.get("save_every", 10) == 0 or stopping:
            save(step, weights)
        if stopping:
            if RANK == 0:
                (FOLDER / "preempted").touch()
            return PREEMPTED
    finish(plan, weights)
    return 0


def tokens(seconds: float, makes: bool) -> None:
    folder = FOLDER / "tokens"
    account = folder / "account.json"
    how = "found" if account.exists() else "made" if makes else "got"
    if how == "made":
        time.sleep(seconds)
        folder.mkdir(exist_ok=True)
        (folder / "train.tokens").write_bytes(b"tokens" * 1000)
        account.write_text("{}")
    while not account.exists():
        time.sleep(0.01)
    content = (folder / "train.tokens").read_bytes()
    sys.stdout.write(f"worker {RANK} has {how} {len(content)} bytes of tokens\n")
    sys.stdout.flush()


def write(name: str, content: dict[str, Any]) -> None:
    if RANK == 0:
        draft = FOLDER / f"{name}.tmp"
        draft.write_text(json.dumps(content))
        draft.replace(FOLDER / name)


def log(step: int, total: int) -> None:
    line = {"current_steps": step, "total_steps": total, "loss": 1 / step, "seconds_per_step": 0.01}
    if RANK == 0:
        with (FOLDER / "trainer_log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def save(step: int, weights: str) -> None:
    checkpoint = FOLDER / "out" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / f"rng_state_{RANK}.pth").write_text(f"{RANK} {step}")
    if RANK == 0:
        (checkpoint / "state.txt").write_text(weights)
    (checkpoint / f".saved-rank-{RANK}").touch()


def fail(step: int, how: object) -> int:
    sys.stdout.write("the end is near\n")
    sys.stdout.flush()
    if isinstance(how, int):
        return how
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    failure = {
        "exitClass": "Diverged",
        "message": "the loss is NaN",
        "exception": "Diverged",
        "rank": RANK,
        "step": step,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    (FOLDER / f"failure-rank-{RANK}.json").write_text(json.dumps(failure))
    return 83


def finish(plan: dict[str, Any], weights: str) -> None:
    if RANK != 0:
        return
    final = FOLDER / "final"
    for name, text in (
        ("adapter/adapter_model.safetensors", weights),
        ("model/README.md", "# card"),
        ("results/all_results.json", "{}"),
        ("plots/training_loss.png", "png"),
    ):
        path = final / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not plan.get("forget"):
        (final / ".done").touch()


if __name__ == "__main__":
    sys.exit(main())
