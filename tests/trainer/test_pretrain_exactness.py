"""Pretraining through our whole path equals a script of plain transformers, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import exactness
import pytest
import tiny
from corpora import NEW, SIZES, documents

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]


def test_the_reference_is_short_and_imports_nothing_of_ours() -> None:
    exactness.check_reference("pretrain_reference.py")


def exact_changes(folder: Path) -> dict[str, Any]:
    return {
        **NEW,
        "architecture": {"family": "gpt2", **SIZES, "tieWordEmbeddings": True},
        "tokenizer": {"uri": f"file://{folder}/tokenizer/"},
        "datasets": [
            {"uri": f"file://{folder}/text.jsonl", "format": "Text"},
            {"uri": f"file://{folder}/text.txt", "format": "Text"},
        ],
        "evaluation": exactness.EVALUATION,
        "training": {**exactness.TRAINING, "maxLength": 48},
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
    lines, history = exactness.run_both(
        tmp_path,
        processes,
        "pretrain_reference.py",
        exact_changes(tmp_path),
        source="tokenizer",
        files=(jsonl.name, txt.name),
    )
    curves = {"loss": "loss", "grad_norm": "grad_norm", "lr": "learning_rate"}
    exactness.compare(lines, history, curves | {"eval_loss": "eval_loss"}, processes)
    assert max(line["epoch"] for line in lines) > 2, "the short last sequence was trained"
    weights = "model/model.safetensors"
    assert exactness.sha256(tmp_path / "out" / weights) == exactness.sha256(
        tmp_path / "theirs" / weights
    )
