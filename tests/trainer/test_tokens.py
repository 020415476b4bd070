"""The token files of a run, and the account of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_trainer import tokens
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
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    changes = {"training.maxLength": 16, "sft": {"loss": "AllTokens"}}
    folder = jobs.write_job(tmp_path, tiny_model, changes, data=[rows])
    job = Job.model_validate_json((folder / JOB).read_bytes())
    account = tokens.prepare(job, tokenizer, tmp_path / "tokens")
    assert account.turn_end == tokenizer.convert_tokens_to_ids("<|im_end|>")
