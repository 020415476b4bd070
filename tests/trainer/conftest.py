"""Fixtures of the trainer's tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """A training process in the test's own process sets what its libraries are told."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


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
