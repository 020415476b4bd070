from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from llmtrain_trainer import torchrun, worker


def test_what_the_user_set_reaches_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"TOKENIZERS_PARALLELISM": "false"})
    monkeypatch.setattr(worker, "wait_for_job", lambda path: 1 / 0)
    monkeypatch.setitem(sys.modules, "llmtrain_trainer.stages.flow", worker)  # Without torch.
    monkeypatch.setattr(worker, "current_step", lambda: None, raising=False)
    assert worker.main([str(tmp_path)]) != 0
    assert os.environ == {**worker.ENVIRONMENT, "TOKENIZERS_PARALLELISM": "false"}


def test_launcher_and_worker_do_not_set_the_same_twice() -> None:
    made = torchrun.environment({}, cores=1, processes=1)
    assert not made.keys() & worker.ENVIRONMENT.keys()


def test_training_processes_do_not_find_weights_and_biases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", worker)  # So that it is put back.
    worker.hide_wandb()
    assert importlib.util.find_spec("wandb") is None
