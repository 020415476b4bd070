"""Our whole path and plain TRL give the same loss curve and weights, bit for bit."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

REFERENCE = Path(__file__).parent / "reference" / "sft_reference.py"
STEPS = 54


def conversations(count: int) -> list[dict[str, Any]]:
    """Returns chats of one to three questions and answers, some with a system message."""
    chance = random.Random(5)
    rows = []
    for number in range(count):
        messages = []
        if number % 3 == 0:
            messages.append({"role": "system", "content": "Answer with one word."})
        for turn in range(chance.randint(1, 3)):
            messages.append({"role": "user", "content": f"Say it ({number}.{turn})"})
            words = ["red", "blue", "green"]
            messages.append({"role": "assistant", "content": chance.choice(words)})
        rows.append({"messages": messages})
    return rows


def reference_code_lines() -> int:
    return len(REFERENCE.read_text().splitlines())


def test_the_reference_is_short_and_imports_nothing_of_ours() -> None:
    assert reference_code_lines() <= 60
    assert "llmtrain_" not in REFERENCE.read_text()


def spec_changes(folder: Path, processes: int) -> dict[str, Any]:
    return {
        "model.uri": f"file://{folder}/model/",
        "datasets": [
            {"uri": f"file://{folder}/alpaca.jsonl", "format": "Alpaca"},
            {"uri": f"file://{folder}/chats.jsonl", "format": "Messages"},
        ],
        "output.uri": f"file://{folder}/out/",
        "evaluation": {"fraction": 0.2, "everySteps": 18},
        "sft": {"packing": True},
        "training": {
            "maxSteps": STEPS,
            "globalBatchSize": 8,
            "microBatchSize": 2,
            "maxLength": 96,
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
    [
        pytest.param(1, id="in one process"),
        pytest.param(2, id="in two processes"),
    ],
)
def test_the_loss_curve_equals_plain_trl_bit_for_bit(processes: int, tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny.build_model(model)
    files = [str(tmp_path / "alpaca.jsonl"), str(tmp_path / "chats.jsonl")]
    for file, rows in zip(files, [tiny.alpaca_rows(120), conversations(60)], strict=True):
        Path(file).write_bytes(tiny.jsonl(rows))
    run_file = tmp_path / "run.json"
    spec = jobs.small_spec(spec_changes(tmp_path, processes))
    run_file.write_text(json.dumps({"name": "exact", "spec": spec}))
    ours, theirs = tmp_path / "out", tmp_path / "theirs"

    scratch = ("--scratch", str(tmp_path / "scratch"))
    done = jobs.run_processes(1, "-m", "llmtrain_trainer", str(run_file), *scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    done = jobs.run_processes(processes, str(REFERENCE), str(model), str(theirs), *files)
    assert done.returncode == 0, done.stdout + done.stderr

    log = (ours / "results" / "trainer_log.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
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
    assert lines[0]["loss"] > 1.1 * [line["loss"] for line in lines if "loss" in line][-1]
    adapter = "adapter/adapter_model.safetensors"
    assert sha256(ours / adapter) == sha256(theirs / adapter)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
