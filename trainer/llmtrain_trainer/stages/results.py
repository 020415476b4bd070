"""The numbers of a finished run: `all_results.json`.

Keys are those of LLaMA-Factory's `all_results.json`, with an account of the rows beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmtrain_trainer.data.tokens import Account

History = Sequence[Mapping[str, float]]
"""transformers' `log_history`: a mapping per log, with its `step`; it survives a resume."""

_COMPARES = {"eval_rewards/chosen", "eval_rewards/rejected", "eval_mean_reward"}
"""What is logged where the loss compares answers, so that it is no logarithm of a probability."""

_OF_THE_ATTEMPT = (
    "train_tokens_per_second",
    "train_tokens_per_second_per_device",
    "train_mfu",
    "train_data_wait",
    "peak_memory_device",
    "peak_memory_host",
)
"""Speed and memory of the last attempt, from `efficiency.results`."""

_BEST = ("best_metric", "best_step", "best_value", "model_step", "stopped_early")
_COUNTS = ("rows", "train", "evaluation", "dropped", "truncated", "tokens", "trained_tokens")


def collect(
    metrics: Mapping[str, Any], history: History, account: Account, weights: str
) -> dict[str, Any]:
    """Returns what `all_results.json` holds.

    Args:
        metrics: What `Trainer.train` returned: of this attempt only, where a run was resumed. With
            it, what is known of the best model.
        history: The logs of the whole run.
        account: What became of the rows.
        weights: SHA-256 of the trained weights.
    """
    steps = int(max((line["step"] for line in history), default=0))
    epochs = [line["epoch"] for line in history if "epoch" in line]
    results: dict[str, Any] = {
        "epoch": epochs[-1] if epochs else 0.0,
        "total_steps": steps,
        "train_loss": mean_loss(history),
    }
    for name in ("train_runtime", "train_samples_per_second", "train_steps_per_second"):
        results[name] = metrics.get(name)
    results["total_flos"] = metrics.get("total_flos")
    results |= {name: metrics[name] for name in _OF_THE_ATTEMPT if name in metrics}
    evaluations = [line for line in history if "eval_loss" in line]
    results |= {name: metrics[name] for name in _BEST if name in metrics}
    step = metrics.get("model_step")
    if of_model := [line for line in evaluations if line["step"] == step]:
        evaluations = of_model
    if evaluations:
        last = evaluations[-1]
        results |= {
            name: in_json(value) for name, value in last.items() if name.startswith("eval_")
        }
        if not _COMPARES & last.keys():
            results["perplexity"] = in_json(perplexity(last["eval_loss"]))
    results |= {
        f"{'data_' if name != 'rows' else ''}{name}": account.total(name) for name in _COUNTS
    }
    results["weights_sha256"] = weights
    return results


def mean_loss(history: History) -> float | None:
    """Returns the mean training loss over all steps: each log is the mean since the log before."""
    total, last = 0.0, 0
    for line in history:
        if "loss" in line:
            step = int(line["step"])
            total += line["loss"] * (step - last)
            last = step
    return total / last if last else None


def perplexity(loss: float) -> float:
    """Returns exp(loss), infinite where that is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def in_json(value: float) -> float | str:
    """Returns a number as JSON can hold it: one without end as the word that languages read."""
    return "Infinity" if value == math.inf else value
