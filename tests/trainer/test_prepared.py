"""Runs whose tokens are there before, are all there is to make, or come of sources by weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jobs
import pytest
from corpora import NEW, documents

from llmtrain_trainer import worker

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

SOURCES = [
    {"uri": f"s3://data/{name}.jsonl", "format": "Text", "weight": weight}
    for name, weight in (("books", 0.75), ("web", 0.25))
]
WEIGHED = {**NEW, "datasets": SOURCES, "training.mixing": "AllExhausted"}


def train(folder: Path) -> str:
    """Trains and returns the hash of the weights."""
    assert worker.main([str(folder)]) == 0
    return str(jobs.results(folder)["weights_sha256"])


def write(folder: Path, tokenizer: Path) -> Path:
    return jobs.write_job(folder, tokenizer, WEIGHED, data=[documents(20), documents(60)])


def test_sources_are_trained_by_their_share_and_from_the_cache_alike(
    tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write(tmp_path / "first", tokenizer)
    weights = train(first)
    books, web = jobs.results(first)["data_mixing"]
    assert books["sequences"] == pytest.approx(3 * web["sequences"], abs=2)
    assert (web["epochs"], books["epochs"] > 1) == (1.0, True)
    assert books["epochs_trained"] > 0
    assert "sequences of an epoch: " in caplog.text

    again = write(tmp_path / "again", tokenizer)
    shutil.copytree(first / "tokens", again / "tokens")
    job = json.loads((again / "job.json").read_text())
    (again / "job.json").write_text(json.dumps({**job, "makesTokens": False}))
    assert train(again) == weights, "tokens that another node made train the same model"


def test_a_job_of_its_own_makes_tokens_and_no_model(tokenizer: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "prepare", tokenizer)
    job = json.loads((folder / "job.json").read_text())
    job["run"]["task"] = "Prepare"
    (folder / "job.json").write_text(json.dumps(job))
    assert worker.main([str(folder)]) == 0
    assert (folder / "tokens" / "account.json").is_file()
    assert not (folder / "final").exists()
    assert not (folder / "out").exists()
