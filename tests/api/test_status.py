from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.status import (
    MAX_ATTEMPTS_KEPT,
    MAX_CHECKPOINTS_KEPT,
    ConditionType,
    RunStatus,
)
from llmtrain_api.statussize import MAX_STATUS_BYTES, fitted

TIME = "2026-11-21T15:04:05Z"
IMAGE = "registry.example.com/team/llmtrain/trainer@sha256:" + "0" * 64
PREFIX = "s3://a-bucket-of-the-team/fine-tuning/2026-11/a-run-with-a-long-name-of-forty-letters/"
RUN = "a-run-with-a-long-name-of-forty-letters0"

A_SENTENCE = "x" * 80
SENTENCES = "x" * 300


def failure(number: int, *, newest: bool) -> dict[str, Any]:
    return {
        "exitClass": ExitClass.STORAGE.value,
        "message": "x" * (600 if newest else 256),
        "node": 1023,
        "nodeName": "ip-10-120-130-140.eu-central-1.compute.internal",
        "pod": f"{RUN}-a{number}-1023-abcde",
        "rank": 8191,
        "step": 1_000_000,
        "exception": "botocore.exceptions.EndpointConnectionError",
        "lastLines": ["x" * 120] * 8 if newest else [],
        "exitCode": EXIT_POLICIES[ExitClass.STORAGE].code,
    }


def attempt(number: int) -> dict[str, Any]:
    fails = number > MAX_ATTEMPTS_KEPT - 5
    return {
        "number": number,
        "job": f"{RUN}-a{number}",
        "startTime": TIME,
        "runningTime": TIME,
        "endTime": TIME,
        "outcome": ExitClass.STORAGE.value,
        "counts": True,
        "retry": 3,
        "image": IMAGE,
        **({"failure": failure(number, newest=number == MAX_ATTEMPTS_KEPT)} if fails else {}),
    }


def worst_status() -> dict[str, Any]:
    """Returns the status of a long run on a large cluster that failed again and again.

    Every list is as long as it gets; texts are as long as what stands in them in practice, while
    their bounds are only there to stop nonsense.
    """
    condition = {
        "status": "False",
        "reason": "CreateContainerConfigError",
        "observedGeneration": 12,
        "lastTransitionTime": TIME,
    }
    return {
        "observedGeneration": 12,
        "phase": "Restarting",
        "conditions": [
            {"type": kind.value, **condition, "message": text}
            for kind, text in zip(ConditionType, [A_SENTENCE] * 4 + [SENTENCES] * 3, strict=True)
        ],
        "progress": {
            "step": 1_000_000,
            "totalSteps": 1_000_000,
            "summary": "1000000/1000000",
            "activity": "Evaluating",
            "message": A_SENTENCE,
            "eta": "12d23h",
            "epoch": "1000.25",
            "loss": "10.7321",
            "evalLoss": "10.7321",
            "learningRate": "1.8e-05",
            "tokensPerSecond": "1200000",
            "lastUpdateTime": TIME,
        },
        "attempt": 10,
        "restarts": 10,
        "attempts": [attempt(number + 1) for number in range(MAX_ATTEMPTS_KEPT)],
        "latestCheckpoint": "1000000-a10r3",
        "checkpoints": [
            {"name": f"100000{i}-a10r3", "step": 1_000_000, "time": TIME}
            for i in range(MAX_CHECKPOINTS_KEPT)
        ],
        "artifacts": {
            "model": PREFIX + "model/",
            "adapter": PREFIX + "adapter/",
            "lossPlot": PREFIX + "plots/training_loss.png",
            "results": PREFIX + "results/all_results.json",
            "logs": PREFIX + "attempts/",
        },
        "resolved": {
            "precision": "BF16",
            "device": "NVIDIA H100 80GB HBM3",
            "gradientAccumulationSteps": 16,
            "trainableParameters": 100_000_000,
            "totalParameters": 70_000_000_000,
            "specHash": "0" * 64,
            "image": IMAGE,
        },
        "startTime": TIME,
        "completionTime": TIME,
    }


def size(status: RunStatus) -> int:
    text = json.dumps(status.to_dict(), separators=(",", ":"), ensure_ascii=False)
    return len(text.encode())


def test_a_status_as_large_as_it_gets_in_practice_is_fitted_below_8_kb() -> None:
    status = RunStatus.model_validate(worst_status())
    assert size(status) > MAX_STATUS_BYTES
    assert MAX_STATUS_BYTES * 3 // 4 < size(fitted(status)) <= MAX_STATUS_BYTES


def test_fitting_keeps_all_but_texts_and_what_stands_elsewhere() -> None:
    short = fitted(RunStatus.model_validate(worst_status()))
    *earlier, latest = short.attempts
    assert latest.failure is not None
    assert latest.failure.message.endswith("…")
    assert latest.failure.last_lines != []
    assert latest.image == IMAGE
    assert [one.image for one in earlier] == [None] * (MAX_ATTEMPTS_KEPT - 1)
    assert [one.number for one in short.attempts] == list(range(1, MAX_ATTEMPTS_KEPT + 1))
    assert all(one.failure.node_name for one in short.attempts if one.failure)
    assert short.artifacts == RunStatus.model_validate(worst_status()).artifacts


def test_a_status_that_fits_stays_as_it_is() -> None:
    status = RunStatus.model_validate({"attempt": 1, "attempts": [attempt(1)]})
    assert fitted(status) == status


def test_fitting_twice_changes_nothing() -> None:
    once = fitted(RunStatus.model_validate(worst_status()))
    assert fitted(once) == once


def test_a_status_with_every_text_at_its_bound_is_fitted() -> None:
    status = worst_status()
    texts = {"message": "x" * 2048, "lastLines": ["x" * 256] * 8}
    for one in status["attempts"]:
        if "failure" in one:
            one["failure"] |= texts
    for condition in status["conditions"]:
        condition["message"] = texts["message"]
    whole = RunStatus.model_validate(status)
    assert size(whole) > 30_000
    assert size(fitted(whole)) <= MAX_STATUS_BYTES


def test_a_status_survives_the_way_through_json() -> None:
    status = RunStatus.model_validate(worst_status())
    assert RunStatus.model_validate(status.to_dict()) == status


def test_a_new_status_speaks_of_no_generation() -> None:
    assert RunStatus().to_dict()["observedGeneration"] == -1


@pytest.mark.parametrize(
    ("field", "items"),
    [
        pytest.param("attempts", [attempt(i + 1) for i in range(11)], id="attempts"),
        pytest.param("attempts", [attempt(1), attempt(1)], id="the same attempt twice"),
        pytest.param(
            "checkpoints",
            [{"name": str(i), "step": 1, "time": TIME} for i in range(6)],
            id="checkpoints",
        ),
    ],
)
def test_lists_are_bounded_and_without_twins(field: str, items: list[Any]) -> None:
    with pytest.raises(ValidationError):
        RunStatus.model_validate({field: items})


@pytest.mark.parametrize(
    "time",
    [
        pytest.param("2026-11-21 15:04:05", id="without T and zone"),
        pytest.param("2026-13-21T15:04:05Z", id="a thirteenth month"),
        pytest.param("yesterday", id="in words"),
    ],
)
def test_a_time_that_the_api_server_refuses_is_refused(time: str) -> None:
    with pytest.raises(ValidationError):
        RunStatus.model_validate({"startTime": time})


def test_there_is_no_ready_condition() -> None:
    """Flux would wait for it as long as the run trains, and time out."""
    assert "Ready" not in {kind.value for kind in ConditionType}
