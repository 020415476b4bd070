"""Holds a run through our whole path, raw rows and `run.json`, against a script of plain TRL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jobs
import pytest

REFERENCES = Path(__file__).parents[1] / "trainer" / "reference"
STEPS = 54
TRAINING = {
    "maxSteps": STEPS,
    "globalBatchSize": 8,
    "microBatchSize": 2,
    "learningRate": 5.0e-3,
    "lrSchedulerType": "cosine",
    "warmupSteps": 5,
    "weightDecay": 0.01,
    "maxGradNorm": 0.5,
    "loggingSteps": 1,
    "seed": 7,
    "arguments": {"adam_beta2": 0.98},
}
"""With accumulation in one process and in two. The references say the same in TRL's words."""

EVALUATION = {"fraction": 0.2, "everySteps": 18, "batchSize": 256}
"""All held-out rows are one batch, where transformers' mean over batches is one over tokens."""


def run_both(
    folder: Path,
    processes: int,
    reference: str,
    changes: Mapping[str, Any],
    *,
    source: str = "model",
    files: Sequence[str] = ("rows.jsonl",),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Runs llmtrain, then the reference script, on what lies in `folder`.

    Args:
        folder: Gets the results of ours in `out/`, of the reference in `theirs/`.
        processes: How many train together.
        reference: Name of the script, such as `dpo_reference.py`.
        changes: Changes of the small spec, by path.
        source: The sub-folder with the model, or with the tokenizer of a new one.
        files: The data, in the order of the spec's data sets.

    Returns:
        Our training log, and the reference's.
    """
    spec = jobs.small_spec(
        {
            "model.uri": f"file://{folder}/model/",
            "output.uri": f"file://{folder}/out/",
            "evaluation": EVALUATION,
            "workers.processesPerNode": processes,
            **changes,
        }
    )
    run_file = folder / "run.json"
    run_file.write_text(json.dumps({"name": "exact", "spec": spec}))
    scratch = ("--scratch", str(folder / "scratch"))
    done = jobs.run_processes(1, "-m", "llmtrain_trainer", str(run_file), *scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = folder / "theirs"
    script = str(REFERENCES / reference)
    arguments = (str(folder / source), str(theirs), *(str(folder / name) for name in files))
    done = jobs.run_processes(processes, script, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (folder / "out" / "results" / "trainer_log.jsonl").read_text()
    history: list[dict[str, Any]] = json.loads((theirs / "history.json").read_text())
    return [json.loads(line) for line in log.splitlines()], history


def compare(
    ours: list[dict[str, Any]],
    theirs: list[dict[str, Any]],
    names: Mapping[str, str],
    processes: int,
) -> None:
    """Asserts that curves are equal bit for bit: our names of them, and the reference's.

    In one process, those of held-out rows are equal but for the rounding of transformers' mean. In
    two, accelerate fills the batch of the reference up with rows that stand in it already.
    """
    for name, reference_name in names.items():
        curve = [line[name] for line in ours if name in line]
        expected = [line[reference_name] for line in theirs if reference_name in line]
        assert len(curve) == len(expected), name
        if not name.startswith("eval_"):
            assert len(curve) == STEPS, name
            assert curve == expected, f"the curves of {name} differ"
        elif processes == 1:
            assert len(curve) == STEPS // 18, name
            assert curve == pytest.approx(expected, rel=2e-7), f"the curves of {name} differ"


def sha256(path: Path) -> str:
    """Returns the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_reference(name: str) -> None:
    """Asserts that a reference script is short and imports nothing of ours."""
    text = (REFERENCES / name).read_text()
    assert len(text.splitlines()) <= 60
    assert "llmtrain_" not in text
