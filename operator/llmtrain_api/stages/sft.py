"""`stage: SFT`."""

from __future__ import annotations

from typing import Literal

from llmtrain_api.base import ApiModel


class SFT(ApiModel):
    """Supervised fine-tuning, `stage: SFT`."""

    packing: bool = False
    """Several rows share one sequence of `training.maxLength` tokens, without seeing each other.
    `training.globalBatchSize` then counts packed sequences."""

    loss: Literal["AnswersOnly", "AllTokens"] = "AnswersOnly"
    """What is trained: the assistant's answers and completions, end of turn included, or every
    token."""
