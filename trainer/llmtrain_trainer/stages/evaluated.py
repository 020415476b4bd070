"""The numbers of a run that measures a model: from the rows to `all_results.json`. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmtrain_trainer.data.answers import DROPPED, MEASURED, ROWS, TRUNCATED, UNANSWERED, Key
from llmtrain_trainer.stages import results, scores
from llmtrain_trainer.stages.scores import Rouge


@dataclass(frozen=True)
class Answer:
    """What a model said, and what it was asked."""

    prompt: str
    predict: str
    label: str
    rouge: Rouge


@dataclass(frozen=True)
class Scored:
    """One measured row, or piece of running text."""

    key: Key
    loss: float
    """Sum over its tokens."""
    tokens: int
    correct: int
    answer: Answer | None = None


@dataclass
class Outcome:
    """What one process has measured."""

    rows: list[Scored] = field(default_factory=list)
    batches: int = 0
    loss_seconds: float = 0.0
    predict_seconds: float = 0.0


def losses(rows: Sequence[Scored]) -> dict[str, Any]:
    """Returns loss, perplexity and token accuracy of rows, each token with the same weight.

    `fsum` is exact, so that the order of rows, and which process measured them, does not matter.
    """
    tokens = sum(row.tokens for row in rows)
    if not tokens:
        return {"eval_tokens": 0}
    loss = math.fsum(row.loss for row in rows) / tokens
    perplexity = results.perplexity(loss)
    return {
        "eval_loss": loss,
        "eval_perplexity": perplexity if math.isfinite(perplexity) else "inf",  # JSON has none.
        "eval_mean_token_accuracy": sum(row.correct for row in rows) / tokens,
        "eval_tokens": tokens,
    }


def added(counts: Sequence[Sequence[Counter[str]]]) -> list[Counter[str]]:
    """Returns what became of the rows of each data set, from what each process has counted."""
    nothing: Counter[str] = Counter()
    return [sum(of_one, nothing) for of_one in zip(*counts, strict=True)]


def counts_of(count: Counter[str]) -> dict[str, int]:
    """Returns what became of rows, by the names of the other stages' results."""
    named = {
        "eval_samples": count[MEASURED],
        "rows": count[ROWS],
        "data_dropped": count[DROPPED],
        "data_truncated": count[TRUNCATED],
    }
    return named | ({"data_unanswered": count[UNANSWERED]} if count[UNANSWERED] else {})


def collect(
    uris: Sequence[str], counts: Sequence[Counter[str]], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Returns what `all_results.json` holds.

    Args:
        uris: The data sets.
        counts: What became of the rows of each of them.
        outcomes: What each process has measured; the time is that of the slowest.
    """
    rows = in_order(outcomes)
    total = sum(counts, Counter())
    numbers = losses(rows) | counts_of(total)
    seconds = max(outcome.loss_seconds for outcome in outcomes)
    numbers |= _pace("eval", seconds, total[MEASURED], max(each.batches for each in outcomes))
    answers = [row.answer for row in rows if row.answer is not None]
    if answers:
        numbers |= scores.summary(
            [answer.predict for answer in answers],
            [answer.label for answer in answers],
            [answer.rouge for answer in answers],
        )
        numbers["predict_samples"] = len(answers)
        seconds = max(outcome.predict_seconds for outcome in outcomes)
        numbers |= _pace("predict", seconds, len(answers), max(o.batches for o in outcomes))
    if len(uris) > 1:
        numbers["datasets"] = [
            {"uri": uri, **losses([r for r in rows if r.key[0] == index]), **counts_of(count)}
            for index, (uri, count) in enumerate(zip(uris, counts, strict=True))
        ]
    return numbers


def in_order(outcomes: Sequence[Outcome]) -> list[Scored]:
    """Returns the rows of all processes in the order of the data."""
    return sorted((row for outcome in outcomes for row in outcome.rows), key=lambda row: row.key)


def _pace(kind: str, seconds: float, samples: int, steps: int) -> dict[str, float]:
    pace = {f"{kind}_runtime": round(seconds, 4)}
    if seconds > 0:
        pace[f"{kind}_samples_per_second"] = round(samples / seconds, 3)
        pace[f"{kind}_steps_per_second"] = round(steps / seconds, 3)
    return pace
