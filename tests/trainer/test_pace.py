"""How fast training goes, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmtrain_trainer.stages.pace import Pace, Speed


class Clock:
    """Says what it is set to."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("llmtrain_trainer.stages.pace.time.perf_counter", lambda: clock.now)
    return clock


def test_pauses_are_left_out(clock: Clock) -> None:
    measured = Pace()
    clock.now = 10.0
    measured.step()  # Loading is no step.
    assert measured.seconds_per_step is None
    for clock.now in (12.0, 14.0):
        measured.step()
    measured.pause()  # A save until 100.
    for clock.now in (100.0, 102.0):
        measured.step()
    assert measured.seconds_per_step == 2.0
    assert measured.read(600.0) == Speed(tokens_per_second=100.0, data_wait=0.0)
    assert measured.read(600.0) == Speed(), "no step since"
    assert measured.whole() == Speed(tokens_per_second=100.0, data_wait=0.0)
    clock.now = 130.0
    assert measured.elapsed_seconds == 130.0


def test_the_wait_for_rows_is_a_share_of_the_time(clock: Clock) -> None:
    measured = Pace()

    def batches(seconds: float) -> list[int]:
        def slowly() -> Iterator[int]:
            for number in range(2):
                clock.now += seconds
                yield number

        taken = list(measured.waiting(slowly()))
        clock.now += 2.0  # The forward and backward passes.
        measured.step()
        return taken

    assert batches(5.0) == [0, 1], "the wait of the first step is not timed, as its step is not"
    batches(0.5)  # 1 s of 3 s.
    assert measured.read(30.0).data_wait == pytest.approx(1 / 3)
    batches(1.0)  # 2 s of 4 s.
    assert measured.read(70.0) == Speed(tokens_per_second=10.0, data_wait=0.5)
    assert measured.whole() == Speed(tokens_per_second=10.0, data_wait=3 / 7)
