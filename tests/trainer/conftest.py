"""Fixtures of the trainer's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the tiny model; imports torch."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.build_model(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a tokenizer and nothing else, as the launcher downloads it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, folder)
    return folder
