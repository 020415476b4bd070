"""The same spec, data and topology give the same tensors on a CPU, to the last bit."""

from __future__ import annotations

from pathlib import Path

import jobs
import pytest

from llmtrain_trainer.transfer import sha256_of

pytestmark = pytest.mark.torch

FULL = {"tuning": {"method": "Full"}, "sft.packing": True, "training.maxSteps": 6}


@pytest.mark.parametrize(
    ("processes", "deterministic"),
    [
        pytest.param(1, True, id="by deterministic operations alone"),
        pytest.param(2, False, id="as it is, in two processes"),
    ],
)
def test_a_run_done_twice_has_the_same_hash(
    processes: int, deterministic: bool, tiny_model: Path, tmp_path: Path
) -> None:
    changes = {
        **FULL,
        "training.deterministic": deterministic,
        "workers.processesPerNode": processes,
    }
    hashes = []
    for name in ("first", "second"):
        folder = jobs.write_job(tmp_path / name, tiny_model, changes)
        done = jobs.run_processes(processes, "-m", "llmtrain_trainer.worker", str(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        file = folder / "final" / "model" / "model.safetensors"
        hashes.append((jobs.results(folder)["weights_sha256"], sha256_of(file)))
    assert hashes[0] == hashes[1]
