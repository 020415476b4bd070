"""By what a service knows a run again after a restart, and what it is told of it beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from llmtrain_api.runfile import RunFile, spec_hash


def identity(run: RunFile) -> str:
    """Returns what is the same in all attempts of a run: its UID.

    On a machine without Kubernetes it is made of the output prefix and the spec.
    """
    if run.uid:
        return run.uid
    return hashlib.sha256(f"{run.spec.output.uri} {spec_hash(run.spec)}".encode()).hexdigest()[:32]


def parameters(run: RunFile) -> dict[str, str]:
    """Returns the spec as flat names and texts, such as `training.learningRate`."""
    return dict(_flat(run.spec.to_dict(), ""))


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), each) for key, each in value.items()]
    elif isinstance(value, list):
        items = [(f"{name}.{index}", each) for index, each in enumerate(value)]
    else:
        return [(name, str(value))]
    return [pair for key, each in items for pair in _flat(each, key)]
