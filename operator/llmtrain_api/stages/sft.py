"""`stage: SFT`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import Rule

CHAT_TEMPLATES = (
    "chatml",
    "llama3",
    "qwen",
    "gemma",
    "phi",
    "mistral",
    "alpaca",
    "vicuna",
    "HumanAssistant",
)
"""The chat templates that have a name."""


def _is_template(text: str) -> bool:
    return text in CHAT_TEMPLATES or "{{" in text or "{%" in text


ChatTemplate = Annotated[
    str,
    Field(min_length=1, max_length=65_536),
    Rule(
        f"self in {list(CHAT_TEMPLATES)} || self.contains('{{{{') || self.contains('{{%')",
        _is_template,
        f"use one of {', '.join(CHAT_TEMPLATES)}, or a template in Jinja",
    ),
]
"""A chat template by name, or in Jinja."""

Loss = Literal["AnswersOnly", "LastAnswerOnly", "AllTokens"]
"""Which tokens of a row the loss falls on."""


class SFT(ApiModel):
    """Supervised fine-tuning, `stage: SFT`."""

    packing: bool = False
    """Several rows share one sequence of `training.maxLength` tokens, without seeing each other.
    `training.globalBatchSize` then counts packed sequences."""

    loss: Loss = "AnswersOnly"
    """What is trained: the assistant's answers and completions, end of turn included; only the last
    of them; or every token."""

    chat_template: ChatTemplate | None = None
    """How conversations become text: a template by name, as users of LLaMA-Factory know them, or
    one in Jinja. It is saved with the model. Default: the model's own."""
