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
    from llmtrain_trainer.stages.callbacks import Pace, log_line

    loss = 1.234567890123456
    line = log_line({"loss": loss, "learning_rate": 1e-5, "epoch": 0.5}, 25, 200, Pace())
    assert line["loss"] == loss
    assert json.loads(json.dumps(line))["loss"] == loss
    assert (line["current_steps"], line["total_steps"], line["percentage"]) == (25, 200, 12.5)
    assert "eval_loss" not in line
    assert "remaining_time" not in line


def test_the_pace_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmtrain_trainer.stages import callbacks

    clock = iter([0.0, 10.0, 12.0, 14.0, 100.0, 102.0, 130.0])
    monkeypatch.setattr("llmtrain_trainer.stages.callbacks.time.perf_counter", lambda: next(clock))
    pace = callbacks.Pace()  # Begins at 0.
    pace.step()  # At 10: loading is no step.
    assert pace.seconds_per_step is None
    pace.step()
    pace.step()
    pace.pause()  # A save until 100.
    pace.step()
    pace.step()
    assert pace.seconds_per_step == 2.0
    assert pace.tokens_per_second(600.0) == 100.0
    assert pace.tokens_per_second(600.0) is None
    assert pace.elapsed_seconds == 130.0


def test_remaining_time_follows_the_pace_and_not_the_steps_of_earlier_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llmtrain_trainer.stages import callbacks

    clock = iter([0.0, 1.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr("llmtrain_trainer.stages.callbacks.time.perf_counter", lambda: next(clock))
    pace = callbacks.Pace()
    pace.step()
    pace.step()
    line = callbacks.log_line({"loss": 1.0}, 900, 1000, pace)
    assert (line["elapsed_time"], line["remaining_time"]) == ("0:00:03", "0:03:20")


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
