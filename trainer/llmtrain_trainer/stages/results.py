"""The numbers of a finished run: `all_results.json` and the plot of the loss.

Keys are those of LLaMA-Factory's `all_results.json`, with an account of the rows beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtrain_trainer.data.tokens import Account

History = Sequence[Mapping[str, float]]
"""transformers' `log_history`: a mapping per log, with its `step`; it survives a resume."""

_COMPARES = {"eval_rewards/chosen", "eval_rewards/rejected", "eval_mean_reward"}
"""What is logged where the loss compares answers, so that it is no logarithm of a probability."""

_COUNTS = ("rows", "train", "evaluation", "dropped", "truncated", "tokens", "trained_tokens")


def collect(
    metrics: Mapping[str, float], history: History, account: Account, weights: str
) -> dict[str, Any]:
    """Returns what `all_results.json` holds.

    Args:
        metrics: What `Trainer.train` returned: of this attempt only, where a run was resumed.
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
    evaluations = [line for line in history if "eval_loss" in line]
    if evaluations:
        last = evaluations[-1]
        results |= {name: value for name, value in last.items() if name.startswith("eval_")}
        if not _COMPARES & last.keys():
            results["perplexity"] = perplexity(last["eval_loss"])
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


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns an exponential moving average whose memory grows with the number of points.

    The weight of the past goes from 0 (no points) towards 0.9, as in LLaMA-Factory's plots.
    """
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(losses))) - 0.5)
    smoothed: list[float] = []
    for loss in losses:
        smoothed.append(loss if not smoothed else weight * smoothed[-1] + (1 - weight) * loss)
    return smoothed


def plot(history: History, title: str, path: Path) -> None:
    """Draws the training loss, raw and smoothed, and the evaluation loss over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # Late, and without a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    training = [(line["step"], line["loss"]) for line in history if "loss" in line]
    evaluation = [(line["step"], line["eval_loss"]) for line in history if "eval_loss" in line]
    if training:
        steps, losses = zip(*training, strict=True)
        axes.plot(steps, losses, color="#9ecae1", linewidth=1, label="training loss")
        axes.plot(steps, smooth(losses), color="#08519c", linewidth=2, label="smoothed")
    if evaluation:
        steps, losses = zip(*evaluation, strict=True)
        axes.plot(
            steps,
            losses,
            color="#d94801",
            marker="o",
            markersize=4,
            linewidth=1.5,
            label="held out",
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.set_title(title, loc="left")
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if training or evaluation:
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
