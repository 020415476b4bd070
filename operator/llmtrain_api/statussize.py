"""Keeps a run's status small: it is sent whole to everyone who watches the run."""

from __future__ import annotations

import json
from typing import Any

from llmtrain_api.status import Attempt, RunStatus

MAX_STATUS_BYTES = 8 * 1024
_TEXTS = ("message", "lastLines")
_LENGTHS = (2048, 1024, 512, 384, 256, 192, 128, 96, 64, 32)
"""Tried one after the other, in letters: the first that makes the status fit is taken."""
_LETTERS_PER_LINE = 64
"""A length leaves this share of it as last lines: at 128 letters two lines, the newest."""


def fitted(status: RunStatus) -> RunStatus:
    """Returns `status` made to fit in MAX_STATUS_BYTES.

    First earlier attempts lose what their Job's name and `resolved` tell anyway, then messages and
    last lines are cut to one length; whole they are in storage. A status that fits is returned as
    it is, and fitting one twice changes nothing.
    """
    if _size(status.to_dict()) <= MAX_STATUS_BYTES:
        return status
    earlier = [_in_short(attempt) for attempt in status.attempts[:-1]]
    attempts = [*earlier, *status.attempts[-1:]]
    lean = status.model_copy(update={"attempts": attempts}).to_dict()
    short = next(
        (short for length in _LENGTHS if _size(short := _cut(lean, length)) <= MAX_STATUS_BYTES),
        _cut(lean, _LENGTHS[-1]),
    )
    return RunStatus.model_validate(short)


def _size(status: Any) -> int:
    return len(json.dumps(status, separators=(",", ":"), ensure_ascii=False).encode())


def _in_short(attempt: Attempt) -> Attempt:
    failure = attempt.failure and attempt.failure.model_copy(update={"pod": None})
    return attempt.model_copy(update={"image": None, "failure": failure})


def _cut(value: Any, length: int, name: str = "") -> Any:
    """Returns `value` with every text below it cut that is not a name or a place."""
    if isinstance(value, dict):
        return {key: _cut(field, length, key) for key, field in value.items()}
    if isinstance(value, list):
        oldest = max(0, len(value) - length // _LETTERS_PER_LINE) if name == "lastLines" else 0
        return [_cut(item, length, name) for item in value[oldest:]]
    if name in _TEXTS and len(value) > length:
        return value[: length - 1] + "…"
    return value
