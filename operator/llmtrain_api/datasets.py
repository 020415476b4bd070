"""Which rows are trained on, and which are held out."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Uri
from llmtrain_api.markers import Rule

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".txt")
"""How the name of an object ends: it says how the object reads."""

COMPRESSIONS = (".gz", ".zst")
"""What may follow a suffix, when the object is compressed."""

_KINDS = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
_PACKINGS = "|".join(suffix.removeprefix(".") for suffix in COMPRESSIONS)
_NAME = f"[.]({_KINDS})([.]({_PACKINGS}))?$"


class Dataset(ApiModel):
    """One source of training rows."""

    uri: Annotated[
        Uri,
        Rule(
            f"self.matches('{_NAME}')",
            lambda uri: re.search(_NAME, uri) is not None,
            f"use an object that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, each also"
            f" with {' or '.join(COMPRESSIONS)} after it",
        ),
    ]
    """An object whose name says how it reads: `.jsonl` (one JSON object a line), `.json` (one list
    of objects), `.csv` (the first line names the columns, all cells are strings), `.parquet`,
    `.arrow`, or `.txt` (a row in every line that is not blank, with the column `text`); each also
    compressed, as `.gz` or `.zst`."""

    format: Literal["Text", "Alpaca", "Messages", "PromptCompletion", "Preference", "KTO"]
    """How a row reads. `Text`: `text`, for the stages Tokenizer and Pretrain. `Alpaca`:
    `instruction`, optional `input` and `system`, `output`. `Messages`: `messages`, a list of `role`
    and `content` as in the OpenAI format. `PromptCompletion`: `prompt` and `completion`, trained as
    plain text without a chat template. `Preference`: `prompt`, `chosen` and `rejected`, for DPO and
    Reward. `KTO`: `prompt`, `completion` and `label`, true for a good answer."""


class Evaluation(ApiModel):
    """Loss on rows that are held out of training."""

    fraction: Annotated[
        float,
        Rule(
            "self > 0.0 && self < 1.0",
            lambda value: 0 < value < 1,
            "use a share between 0 and 1, such as 0.05, or remove evaluation to hold out no rows",
        ),
    ]
    """Share of the rows held out, between 0 and 1. Which rows is a function of their content, so
    the split stays the same when rows are added, moved or repeated."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps between two evaluations. Default: only once, at the end."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows per process and forward pass. Default: `training.microBatchSize`."""
