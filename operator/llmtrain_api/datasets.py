"""Which rows are trained on, and which are held out."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

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


_Name = Annotated[str, Field(min_length=1, max_length=128)]

COLUMNS = {
    "Text": ("text",),
    "Alpaca": ("instruction", "input", "output", "system", "history"),
    "ShareGPT": ("messages", "role", "content", "system", "tools"),
    "Messages": ("messages", "role", "content", "tools"),
    "PromptCompletion": ("prompt", "completion"),
    "Preference": ("prompt", "chosen", "rejected"),
    "KTO": ("prompt", "completion", "label"),
    "Any": (),
}
"""What the rows of a format hold, and may call by another name."""

_SHAREGPT = {"messages": "conversations", "role": "from", "content": "value"}
_SPEAKERS = {
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
    "tool_call": "function_call",
}

Metric = Literal[
    "loss",
    "perplexity",
    "mean_token_accuracy",
    "rewards/accuracies",
    "rewards/margins",
    "accuracy",
    "margin",
]
"""What held-out rows measure, by the names of transformers and TRL."""

CONVERSATIONS = ("ShareGPT", "Messages")
"""The formats whose turns name who speaks."""


class Columns(ApiModel):
    """Names in the data that differ from those of the format."""

    text: _Name | None = None
    """Default: `text`."""

    instruction: _Name | None = None
    """Default: `instruction`."""

    input: _Name | None = None
    """Default: `input`."""

    output: _Name | None = None
    """Default: `output`."""

    system: _Name | None = None
    """Default: `system`."""

    history: _Name | None = None
    """Default: `history`."""

    messages: _Name | None = None
    """The list of turns. Default: `conversations` for ShareGPT, `messages` for Messages."""

    role: _Name | None = None
    """In a turn: who speaks. Default: `from` for ShareGPT, `role` for Messages."""

    content: _Name | None = None
    """In a turn: what is said. Default: `value` for ShareGPT, `content` for Messages."""

    tools: _Name | None = None
    """Default: `tools`."""

    prompt: _Name | None = None
    """Default: `prompt`."""

    completion: _Name | None = None
    """Default: `completion`."""

    chosen: _Name | None = None
    """Default: `chosen`."""

    rejected: _Name | None = None
    """Default: `rejected`."""

    label: _Name | None = None
    """Default: `label`."""

    def renamed(self) -> dict[str, str]:
        """Returns the names that are set, by the format's name for the column."""
        return self.model_dump(exclude_none=True)


class Roles(ApiModel):
    """Names of the speakers in the data that differ from those of the format."""

    system: _Name | None = None
    """Default: `system`."""

    user: _Name | None = None
    """Default: `human` for ShareGPT, `user` for Messages."""

    assistant: _Name | None = None
    """Default: `gpt` for ShareGPT, `assistant` for Messages."""

    tool: _Name | None = None
    """What a tool answers. Default: `observation` for ShareGPT, `tool` for Messages."""

    tool_call: _Name | None = None
    """ShareGPT: a turn of the assistant that holds calls as JSON. Default: `function_call`."""


def _formats_with(column: str) -> list[str]:
    return [format_ for format_, columns in COLUMNS.items() if column in columns]


_NAMES = {format_: ", ".join(columns) or "(none)" for format_, columns in COLUMNS.items()}
_COLUMNS_RULE = Rule(
    "!has(self.columns) || ("
    + " && ".join(
        f"(!has(self.columns.{name}) || self.format in {_formats_with(name)})"
        for name in Columns.model_fields
    )
    + ")",
    lambda it: it.columns is None or it.columns.renamed().keys() <= set(COLUMNS[it.format]),
    "remove the columns that the format does not have",
    at="columns",
    reason="FieldValueForbidden",
    template="the format %s has the columns %s: remove the others",
    values_cel=f"self.format, {_NAMES}[self.format]",
    values=lambda it: (it.format, _NAMES[it.format]),
)


class Dataset(ApiModel):
    """One source of training rows."""

    rules: ClassVar = (
        Rule(
            f"self.format == 'Any' || self.uri.matches('{_NAME}')",
            lambda it: it.format == "Any" or re.search(_NAME, it.uri) is not None,
            f"use an object that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, each also"
            f" with {' or '.join(COMPRESSIONS)} after it",
            at="uri",
        ),
        Rule(
            "self.format != 'Any' || !has(self.maxSamples)",
            lambda it: it.format != "Any" or it.max_samples is None,
            "the format Any is not read row by row: remove it",
            at="maxSamples",
            reason="FieldValueForbidden",
        ),
        _COLUMNS_RULE,
        Rule(
            f"!has(self.roles) || self.format in {list(CONVERSATIONS)}",
            lambda it: it.roles is None or it.format in CONVERSATIONS,
            f"only for the formats {', '.join(CONVERSATIONS)}, whose turns name who speaks:"
            " remove it",
            at="roles",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.roles) || !has(self.roles.toolCall) || self.format == 'ShareGPT'",
            lambda it: it.roles is None or it.roles.tool_call is None or it.format == "ShareGPT",
            "only for the format ShareGPT: remove it; in Messages a turn has tool_calls",
            at="roles.toolCall",
            reason="FieldValueForbidden",
        ),
    )

    uri: Uri
    """An object whose name says how it reads: `.jsonl` (one JSON object a line), `.json` (one list
    of objects), `.csv` (the first line names the columns, all cells are strings), `.parquet`,
    `.arrow`, or `.txt` (a row in every line that is not blank, with the column `text`); each also
    compressed, as `.gz` or `.zst`. With the format `Any` any object, or a folder if it ends in `/`.
    """

    format: Literal[
        "Text", "Alpaca", "ShareGPT", "Messages", "PromptCompletion", "Preference", "KTO", "Any"
    ]
    """How a row reads. `Text`: `text`, for the stages Tokenizer, Pretrain and Evaluate. `Alpaca`:
    `instruction`, `output`, optional `input`, `system` and `history`. `ShareGPT`: `conversations`,
    a list of `from` and `value`, optional `system` and `tools`. `Messages`: `messages`, a list of
    `role` and `content` as in the OpenAI format, optional `tools`. `PromptCompletion`: `prompt` and
    `completion`, trained as plain text without a chat template. `Preference`: `prompt`, `chosen`
    and `rejected`, for DPO and Reward. `KTO`: `prompt`, `completion` and `label`, true for a good
    answer. `Any`: whatever the command of `stage: Custom` reads."""

    columns: Columns | None = None
    """What the rows call their columns. Default: as the format does."""

    roles: Roles | None = None
    """What the turns call who speaks. Default: as the format does."""

    weight: (
        Annotated[
            float,
            Rule(
                "self > 0.0 && self <= 1000000.0",
                lambda value: 0 < value <= 1_000_000,
                "use a number above 0, such as 0.7",
            ),
        ]
        | None
    ) = None
    """What the rows are worth against those of the other data sets: the share of this one in all
    rows is its weight over the sum of all weights; with `stage: Pretrain` its share in all tokens.
    `training.mixing` says how many that makes. For all data sets or none. Default: every row of
    each data set once."""

    max_samples: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None
    """Rows that are read, from the first one on; the rest is not looked at. Default: all."""

    def column(self, name: str) -> str:
        """Returns what the rows call a column of the format."""
        chosen = getattr(self.columns, name) if self.columns is not None else None
        default = _SHAREGPT.get(name, name) if self.format == "ShareGPT" else name
        return chosen or default

    def role(self, name: str) -> str:
        """Returns what the turns call a speaker: a field of `Roles`."""
        chosen = getattr(self.roles, name) if self.roles is not None else None
        default = _SPEAKERS.get(name, name) if self.format == "ShareGPT" else name
        return chosen or default


def _needs(name: str, field: str, other_name: str, other_field: str, advice: str) -> Rule:
    """Returns the rule that one field of `evaluation` is set only beside another."""
    return Rule(
        f"!has(self.{name}) || has(self.{other_name})",
        lambda it: not getattr(it, field) or getattr(it, other_field) is not None,
        advice,
        at=name,
    )


class Evaluation(ApiModel):
    """Loss on rows that are held out of training; for `Tokenizer`, how well it encodes them."""

    rules: ClassVar = (
        _needs(
            "metricForBestModel",
            "metric_for_best_model",
            "everySteps",
            "every_steps",
            "set everySteps too: the best model is one of those that are evaluated on the way",
        ),
        _needs(
            "earlyStoppingPatience",
            "early_stopping_patience",
            "metricForBestModel",
            "metric_for_best_model",
            "set metricForBestModel too, such as loss: it says what has to get better",
        ),
        Rule(
            "!self.loadBestModelAtEnd || has(self.metricForBestModel)",
            lambda it: not it.load_best_model_at_end or it.metric_for_best_model is not None,
            "set metricForBestModel too, such as loss: it says which model is the best",
            at="loadBestModelAtEnd",
        ),
    )

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

    group_by: _Name | None = None
    """A column of the rows, such as `conversation_id`: all rows with the same value in it are held
    out, or none of them, so that nothing of a conversation that is trained on is measured.
    `fraction` is then the share of these values. Default: each row by itself."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps between two evaluations; not for `Tokenizer`. Default: only once, at the
    end."""

    at_start: bool = False
    """Evaluate before the first step too, transformers' `eval_on_start`; not for `Tokenizer`."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows per process and forward pass; not for `Tokenizer`. Default: `training.microBatchSize`.
    """

    metric_for_best_model: Metric | None = None
    """What tells the best model. Whenever it gets better a checkpoint is saved, which
    `checkpoint.keep` leaves in storage. `loss` and `perplexity` are the better the lower they are,
    the others the higher. SFT and Pretrain have `loss`, `perplexity` and `mean_token_accuracy`, DPO
    `loss`, `mean_token_accuracy`, `rewards/accuracies` and `rewards/margins`, KTO `loss` and
    `rewards/margins`, Reward `loss`, `accuracy` and `margin`. Default: none is sought."""

    early_stopping_patience: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Training ends after this many evaluations in a row that found no better model. Default: it
    never ends early."""

    load_best_model_at_end: bool = False
    """The run's result is the best model, not the last one. Default: the last one."""
