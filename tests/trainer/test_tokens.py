"""The token files of a run, and the account of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jobs
import pyarrow
import pytest

from llmtrain_trainer.data import tokens
from llmtrain_trainer.data.rows import is_held_out
from llmtrain_trainer.data.tokens import Account
from llmtrain_trainer.workdir import JOB, Job

pytestmark = pytest.mark.torch

SHORT = {"instruction": "Sort", "input": "", "output": "red"}
LONG = {"instruction": "Sort", "input": "", "output": "red " * 100}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([SHORT], id="of a whole row"),
        pytest.param([LONG, SHORT], id="of a row that is cut at its first answer"),
        pytest.param([LONG], id="where all rows are cut"),
    ],
)
def test_the_end_of_a_turn_is_that_of_a_whole_answer(
    rows: list[dict[str, Any]], tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"training.maxLength": 16, "sft": {"loss": "AllTokens"}}
    account = prepare(tiny_model, tmp_path, rows, changes)
    end = read_tokenizer(tiny_model).convert_tokens_to_ids("<|im_end|>")
    assert account.turn_end == end


def read_tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def prepare(
    model: Path, folder: Path, rows: list[dict[str, Any]], changes: dict[str, Any]
) -> Account:
    """Returns the account of `rows`, whose tokens are in the folder `tokens` then."""
    jobs.write_job(folder, model, changes, data=[rows])
    job = Job.model_validate_json((folder / JOB).read_bytes())
    return tokens.prepare(job, read_tokenizer(model), folder / "tokens")


def read_arrow(path: Path) -> list[dict[str, list[int]]]:
    with path.open("rb") as file:
        content: list[dict[str, list[int]]] = pyarrow.ipc.open_stream(file).read_all().to_pylist()
        return content


def test_rows_are_cut_at_the_length_with_their_labels(tiny_model: Path, tmp_path: Path) -> None:
    account = prepare(tiny_model, tmp_path, [LONG, SHORT], {"training.maxLength": 24})
    lengths = [
        (len(row["input_ids"]), len(row["labels"]))
        for row in read_arrow(tmp_path / "tokens" / "train.arrow")
    ]
    assert lengths[0] == (24, 24)
    assert lengths[1][0] == lengths[1][1] < 24
    assert account.total("tokens") == 24 + lengths[1][0]
    assert (account.total("truncated"), account.total("dropped")) == (1, 0)


def test_rows_go_to_the_side_that_their_content_says(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{**SHORT, "input": str(number)} for number in range(40)]
    account = prepare(tiny_model, tmp_path, rows, {"evaluation": {"fraction": 0.3}})
    held_out = sum(is_held_out(row, 0.3) for row in rows)
    assert account.total("evaluation") == held_out
    assert len(read_arrow(tmp_path / "tokens" / "evaluation.arrow")) == held_out
    assert len(read_arrow(tmp_path / "tokens" / "train.arrow")) == 40 - held_out


def test_tokens_that_are_there_are_used_again_unless_something_changed(
    tiny_model: Path, tmp_path: Path
) -> None:
    account = prepare(tiny_model, tmp_path, [SHORT], {})
    file = tmp_path / "tokens" / "train.arrow"
    written = file.stat().st_mtime_ns
    assert prepare(tiny_model, tmp_path, [SHORT], {}) == account
    assert file.stat().st_mtime_ns == written
    for rows, changes in (([SHORT, LONG], {}), ([SHORT], {"sft": {"loss": "AllTokens"}})):
        other = prepare(tiny_model, tmp_path, rows, changes)
        assert other.key != account.key
        assert other.total("trained_tokens") > account.total("trained_tokens")
        assert sum(label != -100 for row in read_arrow(file) for label in row["labels"]) == (
            other.total("trained_tokens")
        )
