"""How a command's words and environment are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from laptop import Laptop

from llmtrain_trainer.command import environment_of, expand
from llmtrain_trainer.torchrun import Place, variables_of
from llmtrain_trainer.workdir import Job


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        pytest.param("--lr", "--lr", id="a plain word"),
        pytest.param("$(A)", "1", id="a variable"),
        pytest.param("--dir=$(A)/$(B.c)", "--dir=1/2", id="two variables in a word"),
        pytest.param("$(EMPTY)", "", id="an empty variable"),
        pytest.param("$(OTHER)", "$(OTHER)", id="one that is not known"),
        pytest.param("$$(A)", "$(A)", id="one that is escaped"),
        pytest.param("$A ${A} $(a b)", "$A ${A} $(a b)", id="what a shell would expand"),
    ],
)
def test_a_variable_stands_for_its_value(word: str, expanded: str) -> None:
    assert expand([word], {"A": "1", "B.c": "2", "EMPTY": ""}) == [expanded]


def test_a_command_is_told_where_its_folders_are(tmp_path: Path) -> None:
    run = Laptop(tmp_path).command("")
    workdir = tmp_path / "node-0" / "work-a2r0"
    job = Job(run=run, restart=0, node=0, model_path="/m", dataset_files=[])
    given = {"PATH": "/bin", "LLMTRAIN_OUTPUT_DIR": "/elsewhere"}
    assert environment_of(job, workdir, given) == {
        "PATH": "/bin",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
        "LLMTRAIN_MODEL_DIR": "/m",
        "LLMTRAIN_DATA_DIR": f"{tmp_path}/node-0/data",
        "LLMTRAIN_OUTPUT_DIR": f"{tmp_path}/node-0/output",
        "LLMTRAIN_RESUME_FROM": "",
        "LLMTRAIN_SAVE_STEPS": "10",
    }
    later = job.model_copy(update={"resume_from": f"{tmp_path}/node-0/checkpoint-20"})
    resume_from = environment_of(later, workdir, given)["LLMTRAIN_RESUME_FROM"]
    assert resume_from == f"{tmp_path}/node-0/output/checkpoint-20"


def test_progress_goes_past_a_proxy(tmp_path: Path) -> None:
    run = Laptop(tmp_path).command("")
    job = Job(run=run, restart=0, node=0, dataset_files=[])
    given = {"http_proxy": "http://proxy:3128", "NO_PROXY": ".svc"}
    assert environment_of(job, tmp_path / "work", given)["no_proxy"] == ".svc,127.0.0.1"


def test_a_command_without_torchrun_is_told_its_place_in_the_gang(tmp_path: Path) -> None:
    run = Laptop(tmp_path).command("", workers={"nodes": 4})
    run = run.model_copy(update={"master_address": "own-a1-0.own-workers"})
    assert variables_of(Place(run, 1, 0, node=3), port=29500) == {
        "RANK": "3",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "own-a1-0.own-workers",
        "MASTER_PORT": "29500",
    }
