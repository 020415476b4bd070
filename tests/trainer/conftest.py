"""Fixtures of the trainer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the tiny model; imports torch."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.build_model(folder)
    return folder
