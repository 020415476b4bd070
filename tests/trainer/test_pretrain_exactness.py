"""Pretraining through our whole path equals a script of plain transformers, bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny
from corpora import NEW, SIZES, documents

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

REFERENCE = Path(__file__).parent / "reference" / "pretrain_reference.py"
STEPS = 54


def test_the_reference_is_short_and_imports_nothing_of_ours() -> None:
    assert len(REFERENCE.read_text().splitlines()) <= 60
    assert "llmtrain_" not in REFERENCE.read_text()


def exact_changes(folder: Path, processes: int) -> dict[str, Any]:
    return {
        **NEW,
        "architecture": {"family": "gpt2", **SIZES, "tieWordEmbeddings": True},
        "tokenizer": {"uri": f"file://{folder}/tokenizer/"},
        "datasets": [
            {"uri": f"file://{folder}/text.jsonl", "format": "Text"},
            {"uri": f"file://{folder}/text.txt", "format": "Text"},
        ],
        "output.uri": f"file://{folder}/out/",
        "evaluation": {"fraction": 0.2, "everySteps": 18},
        "training": {
            "maxSteps": STEPS,
            "globalBatchSize": 8,
            "microBatchSize": 2,
            "maxLength": 48,
            "learningRate": 5.0e-3,
            "lrSchedulerType": "cosine",
            "warmupSteps": 5,
            "weightDecay": 0.01,
            "maxGradNorm": 0.5,
            "loggingSteps": 1,
            "seed": 7,
            "arguments": {"adam_beta2": 0.98},
        },
        "workers.processesPerNode": processes,
    }


@pytest.mark.parametrize(
    "processes",
    [pytest.param(1, id="in one process"), pytest.param(2, id="in two processes")],
)
def test_the_loss_curve_equals_plain_transformers_bit_for_bit(
    processes: int, tokenizer: Path, tmp_path: Path
) -> None:
    shutil.copytree(tokenizer, tmp_path / "tokenizer")
    jsonl, txt = tmp_path / "text.jsonl", tmp_path / "text.txt"
    jsonl.write_bytes(tiny.jsonl(documents(150)))
    txt.write_text("".join(f"{row['text']}\n" for row in documents(70, seed=4)))
    run_file = tmp_path / "run.json"
    spec = jobs.small_spec(exact_changes(tmp_path, processes))
    run_file.write_text(json.dumps({"name": "exact", "spec": spec}))
    ours, theirs = tmp_path / "out", tmp_path / "theirs"

    scratch = ("--scratch", str(tmp_path / "scratch"))
    done = jobs.run_processes(1, "-m", "llmtrain_trainer", str(run_file), *scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = (str(tmp_path / "tokenizer"), str(theirs), str(jsonl), str(txt))
    done = jobs.run_processes(processes, str(REFERENCE), *inputs)
    assert done.returncode == 0, done.stdout + done.stderr

    text = (ours / "results" / "trainer_log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    history = json.loads((theirs / "history.json").read_text())
    for name, reference_name, count in (
        ("loss", "loss", STEPS),
        ("grad_norm", "grad_norm", STEPS),
        ("lr", "learning_rate", STEPS),
        ("eval_loss", "eval_loss", 3),
    ):
        curve = [line[name] for line in lines if name in line]
        expected = [line[reference_name] for line in history if reference_name in line]
        assert len(curve) == count
        assert curve == expected, f"the curves of {name} differ"
    assert max(line["epoch"] for line in lines) > 2, "the short last sequence was trained"
    weights = "model/model.safetensors"
    assert sha256(ours / weights) == sha256(theirs / weights)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
