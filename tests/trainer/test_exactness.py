"""Our whole path and plain TRL give the same loss curve and weights, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import exactness
import pytest
import tiny

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

FILES = ("alpaca.jsonl", "chats.jsonl")


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


def test_the_reference_is_short_and_imports_nothing_of_ours() -> None:
    exactness.check_reference("sft_reference.py")


def spec_changes(folder: Path) -> dict[str, Any]:
    return {
        "datasets": [
            {"uri": f"file://{folder}/alpaca.jsonl", "format": "Alpaca"},
            {"uri": f"file://{folder}/chats.jsonl", "format": "Messages"},
        ],
        "sft": {"packing": True},
        "training": {**exactness.TRAINING, "maxLength": 96},
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
    for name, rows in zip(FILES, [tiny.alpaca_rows(120), conversations(64)], strict=True):
        (tmp_path / name).write_bytes(tiny.jsonl(rows))
    lines, history = exactness.run_both(
        tmp_path, processes, "sft_reference.py", spec_changes(tmp_path), files=FILES
    )
    curves = {"loss": "loss", "grad_norm": "grad_norm", "lr": "learning_rate"}
    exactness.compare(lines, history, curves | {"eval_loss": "eval_loss"}, processes)
    assert lines[0]["loss"] > 1.1 * [line["loss"] for line in lines if "loss" in line][-1]
    adapter = "adapter/adapter_model.safetensors"
    assert exactness.sha256(tmp_path / "out" / adapter) == exactness.sha256(
        tmp_path / "theirs" / adapter
    )
