"""Weights & Biases' own library, offline: what it would send."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
import tiny

pytestmark = pytest.mark.torch  # The library takes seconds to import, too.


def test_a_run_is_written_whole_under_its_uid(tmp_path: Path) -> None:
    """By the process that the launcher starts, as it starts it."""
    spec = {"tracking": {"wandb": {"project": "tests", "secretName": "keys"}}}
    folder = jobs.write_job(tmp_path / "work", tmp_path, spec, data=[tiny.alpaca_rows(4)])
    lines = [f'{{"current_steps": {step}, "total_steps": 3, "loss": {step}}}' for step in (1, 2, 3)]
    (folder / "trainer_log.jsonl").write_text("\n".join(lines))
    (folder / "tracking-end").write_text("Succeeded")
    done = subprocess.run(
        [sys.executable, "-m", "llmtrain_trainer.tracking", "wandb", str(folder)],
        env={**os.environ, "WANDB_MODE": "offline", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "nothing went wrong, so nothing is said"
    assert '"whole":true' in (folder / "tracking-wandb.json").read_text()
    (offline,) = (folder / "wandb").glob("offline-run-*")
    (written,) = offline.glob("*.wandb")
    content = written.read_bytes()
    for part in (b"train/loss", b"small", b"learningRate"):
        assert part in content
