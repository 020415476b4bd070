"""What a training process cannot do is told in its failure file, and nothing bad is saved."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer import worker

pytestmark = pytest.mark.torch


def with_a_bad_weight(model: Path, folder: Path) -> Path:
    """Returns a copy of `model` in which one weight is NaN."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_tokenizer_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_model, tmp_path / "model")
    small = AutoModelForCausalLM.from_pretrained(tiny_model)
    small.resize_token_embeddings(300)
    small.save_pretrained(tmp_path / "model")
    folder = jobs.write_job(tmp_path / "work", tmp_path / "model")
    assert worker.main([str(folder)]) == EXIT_POLICIES[ExitClass.DATA].code
    assert "but the model has only 300 embeddings" in jobs.failure(folder).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"training.loggingSteps": 1}, "loss is nan at step 1", id="seen in the loss"),
        pytest.param(
            {"training.loggingSteps": 100, "checkpoint.everySteps": 1},
            "is not finite at step 1",
            id="seen in the weights before a save",
        ),
    ],
)
def test_a_run_that_diverged_saves_nothing(
    changes: Mapping[str, Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = with_a_bad_weight(tiny_model, tmp_path / "model")
    folder = jobs.write_job(tmp_path / "work", model, changes)
    assert worker.main([str(folder)]) == EXIT_POLICIES[ExitClass.DIVERGED].code
    told = jobs.failure(folder)
    assert told.exit_class is ExitClass.DIVERGED
    assert told.step == 1
    assert message in told.message
    assert not list(folder.glob("out/checkpoint-*"))
    assert not (folder / "final").exists()


@pytest.mark.parametrize(
    ("changes", "exit_class", "message"),
    [
        pytest.param(
            {"tuning.lora.targetModules": ["q_proj", "query"]},
            ExitClass.CONFIG,
            "tuning.lora.targetModules: the model has no layer 'query': choose from down_proj,",
            id="a layer that the model does not have",
        ),
        pytest.param(
            {"training.arguments": {"adam_beta": 0.9}},
            ExitClass.CONFIG,
            "training.arguments.adam_beta: SFTConfig has no such argument",
            id="an unknown argument",
        ),
        pytest.param(
            {"training.optim": "galore_adamw"},
            ExitClass.CONFIG,
            "training.optim: 'galore_adamw' does not work here",
            id="an optimizer that needs more than there is",
        ),
        pytest.param(
            {"training.maxLength": 8},
            ExitClass.DATA,
            "of 60 rows 60 have no trained token within training.maxLength (8)",
            id="no answer within the length",
        ),
    ],
)
def test_what_cannot_work_is_told_in_the_failure_file(
    changes: Mapping[str, Any],
    exit_class: ExitClass,
    message: str,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs.write_job(tmp_path, tiny_model, changes)
    assert worker.main([str(tmp_path)]) == EXIT_POLICIES[exit_class].code
    assert jobs.failure(tmp_path).exit_class is exit_class
    assert message in jobs.failure(tmp_path).message
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_file_of_the_model_that_is_cut_is_a_fault_of_the_data(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    whole = (model / name).read_bytes()
    (model / name).write_bytes(whole[: len(whole) // 2])
    jobs.write_job(tmp_path, model)
    assert worker.main([str(tmp_path)]) == EXIT_POLICIES[ExitClass.DATA].code
    assert jobs.failure(tmp_path).message.startswith("s3://models/tiny/: transformers")
