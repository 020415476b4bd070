"""Tokens are made once in a working folder, and whoever does not make them waits for them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_trainer.data import tokens
from llmtrain_trainer.data.tokens import Account
from llmtrain_trainer.workdir import ACTIVITY, Activity, Job


def job(folder: Path, uri: str = "s3://data/train.jsonl", **changes: Any) -> Job:
    datasets = [{"uri": uri, "format": "Alpaca"}]
    rows = [{"instruction": "Sort", "output": "red"}]
    jobs.write_job(folder, folder, {"datasets": datasets}, data=[rows])
    return Job.model_validate_json((folder / "job.json").read_bytes()).model_copy(update=changes)


def fill(account: Account) -> None:
    account.datasets[0].rows += 1


def refuse(account: Account) -> None:
    raise AssertionError("the tokens are there already")


def test_a_second_call_makes_nothing(tmp_path: Path) -> None:
    made = tokens.once(job(tmp_path), tmp_path / "tokens", fill)
    assert tokens.once(job(tmp_path), tmp_path / "tokens", refuse) == made


def test_an_account_names_the_data_as_the_job_does(tmp_path: Path) -> None:
    tokens.once(job(tmp_path), tmp_path / "tokens", fill)
    copy = job(tmp_path, "s3://copy/train.jsonl")
    account = tokens.once(copy, tmp_path / "tokens", refuse)
    assert [dataset.uri for dataset in account.datasets] == ["s3://copy/train.jsonl"]
    assert account.total("rows") == 1


def test_what_is_left_of_other_tokens_goes(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "train.arrow").write_text("half of it")
    tokens.once(job(tmp_path), tmp_path / "tokens", fill)
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == ["account.json"]


def test_a_node_that_makes_no_tokens_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_POLL_SECONDS", 0.01)
    waiting = job(tmp_path, makes_tokens=False)
    got: list[Account] = []
    waiter = threading.Thread(
        target=lambda: got.append(tokens.once(waiting, tmp_path / "tokens", refuse))
    )
    waiter.start()
    time.sleep(0.1)
    assert not got
    made = tokens.once(job(tmp_path), tmp_path / "tokens", fill)
    waiter.join(10)
    assert got == [made]


def test_progress_is_told_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_TELL_SECONDS", 0.01)

    def slowly(account: Account) -> None:
        account.datasets[0].rows, account.datasets[0].tokens = 1234, 56_789
        while not (tmp_path / ACTIVITY).exists():
            time.sleep(0.01)

    tokens.once(job(tmp_path), tmp_path / "tokens", slowly)
    told = Activity.model_validate_json((tmp_path / ACTIVITY).read_bytes())
    assert told.activity == "Preparing"
    assert told.message == "turning rows into tokens (1,234 rows, 56,789 tokens so far)"
