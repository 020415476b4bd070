"""A run on an NVIDIA GPU: `pytest -m gpu`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jobs
import pytest

from llmtrain_trainer import worker

pytestmark = pytest.mark.gpu


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return {line["current_steps"]: line["loss"] for line in lines if "loss" in line}


def test_lora_trains_in_bf16_and_goes_on_from_its_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"training.precision": "Auto"}
    first = jobs.write_job(tmp_path / "first", tiny_model, changes)
    assert worker.main([str(first)]) == 0
    resolved = json.loads((first / "resolved.json").read_text())
    assert resolved["precision"] == "BF16"
    assert resolved["device"] != "cpu"
    assert list(losses(first)) == list(range(1, 13))
    assert all(math.isfinite(loss) for loss in losses(first).values())

    checkpoint = first / "out" / "checkpoint-6"
    second = jobs.write_job(tmp_path / "second", tiny_model, changes, resume_from=checkpoint)
    assert worker.main([str(second)]) == 0
    assert list(losses(second)) == list(range(7, 13))
    for step, loss in losses(second).items():
        assert loss == pytest.approx(losses(first)[step], rel=0.05)
