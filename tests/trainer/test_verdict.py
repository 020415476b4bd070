from __future__ import annotations

import json
from typing import Any

import pytest

from llmtrain_api.exits import ExitClass
from llmtrain_trainer.verdict import (
    MOST_BYTES,
    GangEnd,
    ProcessEnd,
    Verdict,
    classify,
    classify_command,
    termination_message,
    to_json,
)
from llmtrain_trainer.workdir import RankFailure

KILLED = (ProcessEnd(rank=1, exit_code=-9),)
CRASHED = (ProcessEnd(rank=1, exit_code=1),)


def spoke(exit_class: ExitClass, rank: int = 0, time: str = "2026-01-01T00:00:00Z") -> RankFailure:
    return RankFailure(exit_class=exit_class, message=f"rank {rank}", rank=rank, time=time)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param({"exit_code": 0}, ExitClass.SUCCESS, id="all processes ended well"),
        pytest.param(
            {"exit_code": 1, "preempted": True}, ExitClass.PREEMPTED, id="they saved and stopped"
        ),
        pytest.param(
            {"exit_code": 1, "ends": [ProcessEnd(3, 85)]},
            ExitClass.PREEMPTED,
            id="on a node without rank 0 the exit code says that they saved and stopped",
        ),
        pytest.param(
            {"exit_code": 1, "ends": CRASHED, "failures": [spoke(ExitClass.DIVERGED)]},
            ExitClass.DIVERGED,
            id="a rank's own word",
        ),
        pytest.param(
            {
                "exit_code": 1,
                "failures": [
                    spoke(ExitClass.PEER_LOST, 0, "2026-01-01T00:00:00Z"),
                    spoke(ExitClass.OUT_OF_MEMORY, 1, "2026-01-01T00:00:01Z"),
                ],
            },
            ExitClass.OUT_OF_MEMORY,
            id="who blames a peer is not believed before the peer itself",
        ),
        pytest.param(
            {"exit_code": 1, "ends": KILLED, "oom_kills": 1},
            ExitClass.OUT_OF_MEMORY,
            id="the kernel killed for memory",
        ),
        pytest.param(
            {
                "exit_code": 1,
                "ends": KILLED,
                "oom_kills": 1,
                "failures": [spoke(ExitClass.PEER_LOST)],
            },
            ExitClass.OUT_OF_MEMORY,
            id="the neighbour of a process that was killed for memory blames a peer",
        ),
        pytest.param(
            {"exit_code": 1, "ends": KILLED}, ExitClass.INTERNAL, id="killed by nobody knows whom"
        ),
        pytest.param(
            {"exit_code": 1, "ends": CRASHED, "oom_kills": 1},
            ExitClass.INTERNAL,
            id="a kill for memory elsewhere does not explain an exit code",
        ),
        pytest.param(
            {"exit_code": 1, "ends": CRASHED, "last_lines": ["torch.OutOfMemoryError: CUDA ..."]},
            ExitClass.OUT_OF_MEMORY,
            id="what was printed speaks of memory",
        ),
        pytest.param(
            {
                "exit_code": 1,
                "ends": CRASHED,
                "nodes": 2,
                "last_lines": ["Connection reset by peer"],
            },
            ExitClass.PEER_LOST,
            id="what was printed speaks of a lost connection",
        ),
        pytest.param(
            {"exit_code": 1, "ends": CRASHED, "nodes": 2, "last_lines": ["import peer_review"]},
            ExitClass.INTERNAL,
            id="a word that only sounds like a lost connection",
        ),
        pytest.param(
            {
                "exit_code": 1,
                "ends": CRASHED,
                "nodes": 1,
                "last_lines": ["Connection reset by peer"],
            },
            ExitClass.INTERNAL,
            id="a lost connection without any peer",
        ),
        pytest.param(
            {"exit_code": -9, "stop_asked": True},
            ExitClass.PREEMPTED,
            id="told to stop and killed when the grace time was over",
        ),
        pytest.param({"exit_code": 1}, ExitClass.INTERNAL, id="torchrun itself failed"),
    ],
)
def test_classify(end: dict[str, Any], expected: ExitClass) -> None:
    assert classify(GangEnd(**end)).exit_class is expected


def ended(code: int) -> tuple[ProcessEnd, ...]:
    return (ProcessEnd(rank=1, exit_code=code),)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param({"exit_code": 0}, ExitClass.SUCCESS, id="all went well"),
        pytest.param(
            {"exit_code": 0, "preempted": True},
            ExitClass.PREEMPTED,
            id="an early end is no result, whatever the exit code",
        ),
        pytest.param(
            {"exit_code": 1, "ends": ended(83)}, ExitClass.DIVERGED, id="the code of a class"
        ),
        pytest.param(
            {"exit_code": 1, "ends": ended(85)},
            ExitClass.INTERNAL,
            id="it cannot say that it was stopped, which would never count",
        ),
        pytest.param(
            {"exit_code": 1, "ends": ended(137), "oom_kills": 1},
            ExitClass.OUT_OF_MEMORY,
            id="a shell says that its child was killed",
        ),
        pytest.param(
            {"exit_code": 1, "ends": KILLED, "oom_kills": 1},
            ExitClass.OUT_OF_MEMORY,
            id="the kernel killed it for memory",
        ),
        pytest.param(
            {"exit_code": 1, "ends": CRASHED, "failures": [spoke(ExitClass.CONFIG)]},
            ExitClass.CONFIG,
            id="it could not be run at all",
        ),
        pytest.param(
            {"exit_code": 1, "ends": CRASHED, "last_lines": ["MemoryError"]},
            ExitClass.OUT_OF_MEMORY,
            id="its last lines speak of memory",
        ),
        pytest.param({"exit_code": 1, "ends": CRASHED}, ExitClass.INTERNAL, id="any other code"),
    ],
)
def test_how_a_command_ended(end: dict[str, Any], expected: ExitClass) -> None:
    assert classify_command(GangEnd(**end)).exit_class is expected


@pytest.mark.parametrize(
    ("trained", "message"),
    [(True, "the grace time ended before a checkpoint"), (False, "before a step was trained")],
)
def test_why_an_order_to_stop_left_no_checkpoint(trained: bool, message: str) -> None:
    end = GangEnd(exit_code=-9, stop_asked=True, trained=trained)
    assert message in classify(end).message


def test_of_two_failures_the_first_one_is_told() -> None:
    late = spoke(ExitClass.INTERNAL, 0, "2026-01-01T00:00:09Z")
    early = spoke(ExitClass.DIVERGED, 5, "2026-01-01T00:00:01Z")
    assert classify(GangEnd(exit_code=1, failures=[late, early])).rank == 5


def test_the_time_of_a_silent_death_is_when_torchrun_saw_it() -> None:
    ends = [ProcessEnd(rank=1, exit_code=-9, seconds=1_767_225_600)]
    assert classify(GangEnd(exit_code=1, ends=ends)).time == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        pytest.param("short", ["a", "b"], id="a short one is whole"),
        pytest.param("x" * 9000, ["y" * 900] * 50, id="a long one is cut"),
        pytest.param("ü\n" * 3000, ["ü"] * 50, id="bytes count, not letters"),
    ],
)
def test_the_message_fits_what_the_kubelet_keeps(message: str, lines: list[str]) -> None:
    verdict = Verdict(ExitClass.INTERNAL, message, last_lines=lines)
    built = termination_message(
        verdict, node=1, step=7, time="2026-11-21T15:04:05Z", latest_checkpoint="5-a1r0"
    )
    assert len(to_json(built).encode()) <= MOST_BYTES
    parsed = json.loads(to_json(built))
    assert parsed["exitClass"] == "InternalError"
    assert parsed["message"][:5] == message[:5]
    assert parsed["step"] == 7
