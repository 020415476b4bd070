"""Which rows are trained on, and which are held out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Uri
from llmtrain_api.markers import Rule


class Dataset(ApiModel):
    """One source of training rows."""

    uri: Annotated[
        Uri,
        Rule(
            "self.endsWith('.jsonl') || self.endsWith('.json')",
            lambda uri: uri.endswith((".jsonl", ".json")),
            "use an object that ends in .jsonl (one JSON object a line) or .json (one list)",
        ),
    ]
    """A `.jsonl` object (one JSON object a line) or a `.json` object (one list of objects)."""

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
