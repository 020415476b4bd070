"""How trackers are told: as often as it takes, each line once, and training never waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmtrain_api.exits import ExitClass
from llmtrain_trainer.tracking import delivery
from llmtrain_trainer.tracking.delivery import END, Delivered, Delivery, state_file
from llmtrain_trainer.tracking.points import Point


class FakeTracker:
    """Fails as often as it is told to, in each of its calls."""

    def __init__(self, begin: int = 0, log: int = 0, end: int = 0) -> None:
        self.left = {"begin": begin, "log": log, "end": end}
        self.begun = 0
        self.steps: list[int] = []
        self.ended: list[ExitClass] = []

    def _fail(self, call: str) -> None:
        if self.left[call]:
            self.left[call] -= 1
            raise ConnectionError(f"{call}: the server\nis down")

    def begin(self) -> None:
        self._fail("begin")
        self.begun += 1

    def log(self, points: Sequence[Point]) -> None:
        self._fail("log")
        self.steps += [point.step for point in points]

    def end(self, exit_class: ExitClass) -> None:
        self._fail("end")
        self.ended.append(exit_class)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_LEAST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "_MOST_PAUSE", 0.02)
    monkeypatch.setattr(delivery, "_POLL_SECONDS", 0.005)


def log(folder: Path, *steps: int) -> None:
    with (folder / "trainer_log.jsonl").open("a") as file:
        for step in steps:
            file.write(json.dumps({"current_steps": step, "total_steps": 9, "loss": 1.0}) + "\n")


def deliver(tracker: FakeTracker, folder: Path, said: list[str]) -> None:
    Delivery("mlflow", tracker, folder, said.append, alive=lambda: True).until_the_end()


def state(folder: Path) -> Delivered:
    return Delivered.model_validate_json((folder / state_file("mlflow")).read_bytes())


@pytest.mark.parametrize(
    "failures",
    [
        pytest.param({}, id="that is always there"),
        pytest.param({"begin": 3}, id="that is down at the beginning"),
        pytest.param({"log": 3}, id="that takes no numbers for a while"),
        pytest.param({"end": 3}, id="that is down at the end"),
    ],
)
def test_a_service_gets_each_line_once(failures: dict[str, int], tmp_path: Path) -> None:
    tracker, said = FakeTracker(**failures), list[str]()
    log(tmp_path, 1, 2, 3)
    (tmp_path / END).write_text(ExitClass.SUCCESS)
    deliver(tracker, tmp_path, said)
    assert (tracker.begun, tracker.steps, tracker.ended) == (1, [1, 2, 3], [ExitClass.SUCCESS])
    assert state(tmp_path) == Delivered(whole=True)
    call = next(iter(failures), "")
    assert said == (
        [
            "mlflow cannot be told of this run, training goes on: ConnectionError:"
            f" {call}: the server is down",
            "mlflow is told of this run again",
        ]
        if failures
        else []
    )


def test_lines_go_out_while_the_run_trains(tmp_path: Path) -> None:
    tracker = FakeTracker()
    log(tmp_path, 1)
    thread = threading.Thread(target=deliver, args=(tracker, tmp_path, []))
    thread.start()
    for step in (2, 3):
        wait_for(tracker, step - 1)
        log(tmp_path, step)
    (tmp_path / END).write_text("Diverged")
    thread.join(10)
    assert tracker.steps == [1, 2, 3]
    assert tracker.ended == [ExitClass.DIVERGED]


def test_the_process_does_not_outlive_the_launcher(tmp_path: Path) -> None:
    tracker = FakeTracker(begin=10**9)
    looks = iter([True] * 5)
    Delivery("mlflow", tracker, tmp_path, print, lambda: next(looks, False)).until_the_end()
    assert not tracker.begun
    assert not state(tmp_path).whole
    assert "the server is down" in state(tmp_path).trouble


def wait_for(tracker: FakeTracker, step: int) -> None:
    for _ in range(1000):
        if step in tracker.steps:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} did not come")
