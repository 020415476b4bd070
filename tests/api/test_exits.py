from __future__ import annotations

import json
from typing import Any

import pytest

from llmtrain_api.errors import ConfigError, DataError, LLMTrainError, StorageError
from llmtrain_api.exits import (
    EXIT_POLICIES,
    ExitClass,
    TerminationMessage,
    class_of_exit_code,
)

TERMINATION_MESSAGE_BYTES = 4096
"""What the kubelet keeps of /dev/termination-log."""


def test_every_class_has_a_policy() -> None:
    assert set(EXIT_POLICIES) == set(ExitClass)


def test_codes_are_distinct() -> None:
    assert len({policy.code for policy in EXIT_POLICIES.values()}) == len(ExitClass)


def test_only_success_exits_0() -> None:
    zero = [exit_class for exit_class, policy in EXIT_POLICIES.items() if policy.code == 0]
    assert zero == [ExitClass.SUCCESS]


def test_no_code_is_one_that_shells_and_signals_use() -> None:
    codes = {policy.code for policy in EXIT_POLICIES.values()} - {0}
    assert all(2 < code < 126 for code in codes)


def test_a_class_that_is_not_retried_does_not_count_as_a_restart() -> None:
    assert not [c for c, policy in EXIT_POLICIES.items() if policy.counts and not policy.retry]


def test_every_failure_has_a_hint() -> None:
    assert [c for c, policy in EXIT_POLICIES.items() if not policy.hint] == [ExitClass.SUCCESS]


@pytest.mark.parametrize("exit_class", [pytest.param(c, id=c.value) for c in ExitClass])
def test_a_code_is_read_back(exit_class: ExitClass) -> None:
    assert class_of_exit_code(EXIT_POLICIES[exit_class].code) is exit_class


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        pytest.param(137, "OOMKilled", ExitClass.OUT_OF_MEMORY, id="killed for memory"),
        pytest.param(0, "OOMKilled", ExitClass.OUT_OF_MEMORY, id="a child killed for memory"),
        pytest.param(137, "Error", ExitClass.INTERNAL, id="killed"),
        pytest.param(139, "", ExitClass.INTERNAL, id="crashed"),
        pytest.param(1, "", ExitClass.INTERNAL, id="a code that is not ours"),
    ],
)
def test_a_code_without_a_message_has_a_class(code: int, reason: str, expected: ExitClass) -> None:
    assert class_of_exit_code(code, reason) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ConfigError("training.optim", "x", "y"), ExitClass.CONFIG, id="config"),
        pytest.param(DataError("s3://d/a:3", "x", "y"), ExitClass.DATA, id="data"),
        pytest.param(StorageError("s3://d", "x", "y"), ExitClass.STORAGE, id="storage"),
        pytest.param(LLMTrainError("x"), ExitClass.INTERNAL, id="any other"),
    ],
)
def test_an_error_knows_its_class(error: LLMTrainError, expected: ExitClass) -> None:
    assert error.exit_class is expected


def test_a_message_names_the_place_the_problem_and_the_way_out() -> None:
    error = ConfigError("training.optim", "'adam' is not an optimizer", "use adamw_torch")
    assert str(error) == "training.optim: 'adam' is not an optimizer: use adamw_torch"


FIELDS = TerminationMessage.model_json_schema()["properties"]


def largest_message(**changes: Any) -> TerminationMessage:
    return TerminationMessage.model_validate(
        {
            "exitClass": ExitClass.STORAGE,
            "message": "m" * FIELDS["message"]["maxLength"],
            "node": 1023,
            "rank": 65_535,
            "step": 100_000_000,
            "time": "2026-11-21T15:04:05.123456+00:00",
            "exception": "e" * FIELDS["exception"]["maxLength"],
            "latestCheckpoint": "c" * FIELDS["latestCheckpoint"]["maxLength"],
            **changes,
        }
    )


def size(message: TerminationMessage) -> int:
    return len(json.dumps(message.to_dict()).encode())


def test_a_termination_message_at_its_bounds_fits_what_the_kubelet_keeps() -> None:
    """Last lines come on top as far as there is room: the launcher drops the oldest."""
    room = TERMINATION_MESSAGE_BYTES - size(largest_message())
    assert room > 4 * 256
    assert size(largest_message(lastLines=["l" * 256] * 4)) <= TERMINATION_MESSAGE_BYTES


def test_a_termination_message_survives_the_way_through_json() -> None:
    message = largest_message(lastLines=["Traceback", "ValueError: ü"])
    assert TerminationMessage.model_validate_json(json.dumps(message.to_dict())) == message
