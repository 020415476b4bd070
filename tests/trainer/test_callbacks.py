"""The lines of the training log, the pace, and the guard."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def test_a_line_of_the_log_holds_full_numbers_and_leaves_out_what_is_unknown() -> None:
    from llmtrain_trainer.stages.callbacks import log_line
    from llmtrain_trainer.stages.pace import Pace

    loss = 1.234567890123456
    line = log_line({"loss": loss, "learning_rate": 1e-5, "epoch": 0.5}, 25, 200, Pace())
    assert line["loss"] == loss
    assert json.loads(json.dumps(line))["loss"] == loss
    assert (line["current_steps"], line["total_steps"], line["percentage"]) == (25, 200, 12.5)
    assert "eval_loss" not in line
    assert "remaining_time" not in line


def test_a_line_reads_well() -> None:
    from llmtrain_trainer.stages.callbacks import describe

    line = {
        "current_steps": 5,
        "total_steps": 20,
        "loss": 1.23456,
        "lr": 1e-4,
        "epoch": 0.5,
        "throughput": 1234.5,
        "remaining_time": "0:01:00",
    }
    expected = "step 5/20  loss 1.2346  lr 0.0001  epoch 0.50  tokens/s 1234  0:01:00 left"
    assert describe(line) == expected
    on_a_gpu = describe({**line, "mfu": 0.4123, "data_wait": 0.004})
    assert "tokens/s 1234  mfu 41.2%  waits for data 0.4%  0:01:00 left" in on_a_gpu


def test_a_line_tells_how_well_the_devices_are_used() -> None:
    from llmtrain_trainer.stages.callbacks import log_line
    from llmtrain_trainer.stages.efficiency import Work
    from llmtrain_trainer.stages.pace import Pace

    pace = Pace()
    pace.step()
    pace.step()
    work = Work(flops_per_token=6.0, devices=2, peak_flops=None)
    line = log_line({"loss": 1.0, "num_tokens": 100.0}, 2, 4, pace, work)
    assert line["throughput_per_device"] == line["throughput"] / 2 > 0
    assert line["data_wait"] == 0.0
    assert line["peak_memory_host"] > 10_000_000
    assert "mfu" not in line, "what a CPU can do is not known"


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_guard_stops_at_numbers_that_are_not_finite(name: str, value: float) -> None:
    from llmtrain_trainer.failures import DivergedError
    from llmtrain_trainer.stages.callbacks import Guard

    state: Any = SimpleNamespace(global_step=7)
    nothing: Any = None
    Guard().on_log(nothing, state, nothing, logs={"loss": 1.0, "grad_norm": 1.0})
    with pytest.raises(DivergedError, match=f"{name} is {value} at step 7"):
        Guard().on_log(nothing, state, nothing, logs={"loss": 1.0, name: value})


def test_samples_that_two_processes_saw_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    from llmtrain_trainer.stages import samples

    with caplog.at_level(logging.INFO, logger="llmtrain_trainer"):
        samples.report([[1, 2, 3], [4, 5, 3]])
    assert "rank 1 was given 3 samples in its first epoch" in caplog.text
    assert "5 distinct samples, 1 of them seen by two processes" in caplog.text


def test_only_the_first_epoch_is_recorded() -> None:
    from llmtrain_trainer.stages.samples import SampleRecorder

    nothing: Any = None
    recorder = SampleRecorder(len)
    recorder.on_epoch_begin(nothing, nothing, nothing)
    assert recorder([{"input_ids": [1, 2]}, {"input_ids": [2, 1]}]) == 2
    recorder.on_epoch_end(nothing, nothing, nothing)
    recorder.on_epoch_begin(nothing, nothing, nothing)
    recorder([{"input_ids": [3]}])
    assert len(set(recorder.digests)) == 2


def test_say_replaces_the_file(tmp_path: Path) -> None:
    from llmtrain_trainer.workdir import say

    say(tmp_path, "Saving", "checkpoint of step 3")
    say(tmp_path, "Training")
    told = json.loads((tmp_path / "activity.json").read_text())
    assert told == {"activity": "Training", "message": ""}
