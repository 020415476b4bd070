"""Fixtures of the trainer's tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tiny

from llmtrain_trainer import worker

_GIVEN = dict(os.environ)


@pytest.fixture(autouse=True)
def environment_as_it_was() -> None:
    """Takes back what a training process in the tests' own process told the libraries."""
    for name in worker.ENVIRONMENT.keys() - _GIVEN.keys():
        os.environ.pop(name, None)


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
