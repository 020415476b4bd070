"""However many processes and nodes share a global batch: the same curves, each row once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny
from corpora import NEW, SIZES, documents

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

BATCH = 8
STEPS_OF_TWO_EPOCHS: dict[str, Any] = {
    "training": {
        "epochs": 2,
        "globalBatchSize": BATCH,
        "microBatchSize": 2,
        "maxLength": 96,
        "learningRate": 5.0e-3,
        "loggingSteps": 1,
        "seed": 5,
    },
    "evaluation": {"fraction": 0.2, "everySteps": 3, "batchSize": 3, "atStart": True},
    "checkpoint": {"everySteps": 1000},
}
NO_DROPOUT = {"tuning": {"method": "LoRA", "lora": {"rank": 4, "alpha": 8}}}
PREFERENCE = [{"uri": "s3://data/train.jsonl", "format": "Preference"}]
STAGES: dict[str, tuple[dict[str, Any], Callable[[int], list[Any]]]] = {
    "SFT": ({}, tiny.alpaca_rows),
    "packed SFT": ({"sft": {"packing": True}}, tiny.alpaca_rows),
    "SFT grouped by length": ({"training.groupByLength": True}, tiny.alpaca_rows),
    "DPO": ({"stage": "DPO", "datasets": PREFERENCE}, tiny.preference_rows),
    "KTO": (
        {
            "stage": "KTO",
            "datasets": [{"uri": "s3://data/train.jsonl", "format": "KTO"}],
            "kto": {"lossType": "apo_zero_unpaired"},
        },
        tiny.judged_rows,
    ),
    "Reward": (
        {"stage": "Reward", "datasets": PREFERENCE, "reward": {"centerRewardsCoefficient": 0.01}},
        lambda count: [
            {name: row["prompt"] + row[name] for name in ("chosen", "rejected")}
            for row in tiny.preference_rows(count)
        ],
    ),
}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def train(folder: Path, processes: int) -> str:
    done = jobs.run_processes(processes, "-m", "llmtrain_trainer.worker", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


_TIMES = (
    *("elapsed_time", "remaining_time", "seconds_per_step", "throughput"),
    *("throughput_per_device", "mfu", "data_wait", "peak_memory_host", "peak_memory_device"),
)


def check_equal(other: Path, one: Path, *, but: str = "") -> None:
    """Asserts that two runs logged the same numbers, `but` one."""
    assert len(lines(other)) == len(lines(one))
    for theirs, ours in zip(lines(other), lines(one), strict=True):
        assert theirs.keys() - {*_TIMES} == ours.keys() - {*_TIMES}
        for name in ours.keys() - {*_TIMES, but}:
            allowed = 1e-5 if name in ("loss", "eval_loss") else 1e-4
            expected = pytest.approx(ours[name], abs=allowed, rel=1e-5 if allowed > 1e-5 else 0)
            assert theirs[name] == expected, (name, ours)


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_and_measure_what_one_does(
    stage: str, tiny_model: Path, tmp_path: Path
) -> None:
    changes, rows = STAGES[stage]
    changes = {**NO_DROPOUT, **STEPS_OF_TWO_EPOCHS, **changes}
    data = [rows(40)]
    one = jobs.write_job(
        tmp_path / "one", tiny_model, {**changes, "training.microBatchSize": 4}, data=data
    )
    train(one, 1)
    two = jobs.write_job(
        tmp_path / "two", tiny_model, {**changes, "workers.processesPerNode": 2}, data=data
    )
    told = train(two, 2)
    check_equal(two, one)
    given = [int(count) for count in re.findall(r"was given (\d+) samples in its first", told)]
    distinct = re.search(r"(\d+) distinct samples, 0 of them seen by two processes", told)
    assert distinct is not None
    assert sum(given) == int(distinct[1])
    assert sum(given) % BATCH, "the last batch of an epoch is not full"


def test_two_nodes_train_and_measure_what_one_does(tiny_model: Path, tmp_path: Path) -> None:
    changes = {**NO_DROPOUT, **STEPS_OF_TWO_EPOCHS}
    data = [tiny.alpaca_rows(40)]
    one = jobs.write_job(
        tmp_path / "one", tiny_model, {**changes, "training.microBatchSize": 4}, data=data
    )
    train(one, 1)
    folders = [
        jobs.write_job(
            tmp_path / f"node-{node}",
            tiny_model,
            {**changes, "training.microBatchSize": 1, "workers": {"nodes": 2}},
            data=data,
        )
        for node in range(2)
    ]
    for process, folder in zip(jobs.start_nodes(folders), folders, strict=True):
        assert process.wait(300) == 0, (folder / "log").read_text()
    # TRL's accuracy of a step is the mean over its micro-batches, which are smaller here.
    check_equal(folders[0], one, but="token_accuracy")


def test_two_processes_pretrain_and_measure_what_one_does(tokenizer: Path, tmp_path: Path) -> None:
    changes = {
        **NEW,
        **STEPS_OF_TWO_EPOCHS,
        "architecture": {"family": "llama", **SIZES},
    }
    folders = {}
    for processes, micro in ((1, 4), (2, 2)):
        training = {**STEPS_OF_TWO_EPOCHS["training"], "maxLength": 48, "microBatchSize": micro}
        more = {**changes, "training": training, "workers.processesPerNode": processes}
        folders[processes] = jobs.write_job(
            tmp_path / str(processes), tokenizer, more, data=[documents(40)]
        )
        train(folders[processes], processes)
    check_equal(folders[2], folders[1])


def test_a_run_goes_on_in_the_middle_of_an_epoch_where_it_was(
    tiny_model: Path, tmp_path: Path
) -> None:
    changes = {
        **NO_DROPOUT,
        **STEPS_OF_TWO_EPOCHS,
        "checkpoint": {"everySteps": 2},
        "training.groupByLength": True,
        "workers.processesPerNode": 2,
    }
    data = [tiny.alpaca_rows(40)]
    whole = jobs.write_job(tmp_path / "whole", tiny_model, changes, data=data)
    train(whole, 2)
    checkpoint = tmp_path / "checkpoint-6"
    shutil.copytree(whole / "out" / "checkpoint-6", checkpoint)
    rows = jobs.results(whole)["data_train"]
    steps_of_an_epoch = -(-rows // BATCH)
    position = json.loads((checkpoint / "position.json").read_text())
    assert position == {"samples": rows + (6 - steps_of_an_epoch) * BATCH}
    resumed = jobs.write_job(
        tmp_path / "resumed", tiny_model, changes, data=data, resume_from=checkpoint
    )
    train(resumed, 2)
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(whole)["weights_sha256"]
    for name in ("loss", "total_tokens", "eval_loss", "token_accuracy"):
        curve = jobs.training_log(whole, name)
        later = {step: value for step, value in curve.items() if step > 6}
        assert jobs.training_log(resumed, name) == later, name
    assert min(line["current_steps"] for line in lines(resumed)) == 7, "each step is logged once"
