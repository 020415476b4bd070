"""Imports the modules of `devcluster`, which is a program and no installed package."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DEVCLUSTER = Path(__file__).parents[2] / "devcluster"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Returns a function that imports a module of `localcluster`."""
    monkeypatch.syspath_prepend(str(DEVCLUSTER))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return lambda name: importlib.import_module(f"localcluster.{name}")
