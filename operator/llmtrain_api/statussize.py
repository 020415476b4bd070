"""Keeps a run's status small: it is sent whole to everyone who watches the run."""

from __future__ import annotations

import json
from typing import Any

from llmtrain_api.status import RunStatus

MAX_STATUS_BYTES = 8 * 1024
_TEXTS = ("message", "lastLines")
_LENGTHS = (1024, 512, 384, 256, 192, 128, 64, 32, 0)
"""Tried one after the other, in letters: the first that makes the status fit is taken."""


def fitted(status: RunStatus) -> RunStatus:
    """Returns `status` with its texts cut to one length at which it fits in MAX_STATUS_BYTES.

    Only messages and last lines are cut; whole they are in storage. A status that fits is returned
    as it is, and fitting one twice changes nothing.
    """
    whole = status.to_dict()
    if _size(whole) <= MAX_STATUS_BYTES:
        return status
    for length in _LENGTHS:
        short = _cut(whole, length)
        if _size(short) <= MAX_STATUS_BYTES:
            break
    return RunStatus.model_validate(short)


def _size(status: Any) -> int:
    return len(json.dumps(status, separators=(",", ":"), ensure_ascii=False).encode())


def _cut(value: Any, length: int, name: str = "") -> Any:
    """Returns `value` with every text below it cut that is not a name or a place."""
    if isinstance(value, dict):
        return {key: _cut(field, length, key) for key, field in value.items()}
    if isinstance(value, list):
        return [_cut(item, length, name) for item in value]
    if name in _TEXTS and len(value) > length:
        return value[: max(0, length - 1)] + "…"
    return value
