from __future__ import annotations

import json

import pytest

from llmtrain_api.progress import Progress
from llmtrain_trainer.progress import merge_logs, progress_of


def line(step: int, **values: float) -> str:
    return json.dumps({"current_steps": step, "total_steps": 100, **values})


@pytest.mark.parametrize(
    ("lines", "before", "expected"),
    [
        pytest.param([], None, None, id="no line, no progress"),
        pytest.param(
            [line(5, loss=2.0, lr=1e-3, throughput=7, epoch=0.5, seconds_per_step=3)],
            None,
            Progress(
                step=5,
                total_steps=100,
                loss=2.0,
                learning_rate=1e-3,
                tokens_per_second=7,
                epoch=0.5,
                seconds_per_step=3,
            ),
            id="a line of training",
        ),
        pytest.param(
            [
                line(
                    5,
                    loss=2.0,
                    throughput_per_device=3,
                    mfu=0.4,
                    data_wait=0.01,
                    peak_memory_host=9,
                )
            ],
            None,
            Progress(
                step=5,
                total_steps=100,
                loss=2.0,
                tokens_per_second_per_device=3,
                mfu=0.4,
                data_wait=0.01,
                peak_memory_host=9,
            ),
            id="how well the devices are used",
        ),
        pytest.param(
            [line(5, loss=2.0), line(5, eval_loss=1.5, best_step=5), line(6, loss=1.9)],
            None,
            Progress(step=6, total_steps=100, loss=1.9, eval_loss=1.5, best_step=5),
            id="the evaluation's loss stays until the next one",
        ),
        pytest.param(
            [line(6, loss=float("nan"), lr=float("inf"))],
            Progress(step=5, total_steps=100, loss=2.0),
            Progress(step=6, total_steps=100, loss=2.0),
            id="what is not a number is left out",
        ),
        pytest.param(
            [json.dumps({"note": 1})],
            Progress(step=5, total_steps=100),
            Progress(step=5, total_steps=100),
            id="a line of another kind changes nothing",
        ),
    ],
)
def test_progress(lines: list[str], before: Progress | None, expected: Progress | None) -> None:
    assert progress_of(lines, before) == expected


@pytest.mark.parametrize(
    ("parts", "steps"),
    [
        pytest.param([], [], id="no log"),
        pytest.param([[1, 2], [3, 4]], [1, 2, 3, 4], id="an attempt that went on where it stopped"),
        pytest.param(
            [[1, 2, 3, 4], [3, 4, 5]], [1, 2, 3, 4, 5], id="steps that were done again count once"
        ),
        pytest.param(
            [[1, 2, 3, 4], [], [1, 2]], [1, 2], id="an attempt that started from the beginning"
        ),
    ],
)
def test_merged_logs(parts: list[list[int]], steps: list[int]) -> None:
    merged = merge_logs([[line(step) for step in part] for part in parts])
    assert [json.loads(each)["current_steps"] for each in merged] == steps
