"""What the preference stages log beside the loss: rewards, margins, and how often they are right.

Names are TRL's. DPO and KTO: `rewards/chosen` is beta times how much more likely the better answers
have become than the reference has them, `rewards/margins` what that is above the worse ones, and
`rewards/accuracies` the share of pairs in which it is above. Reward: `mean_reward`, `margin`,
`accuracy`. Of held-out rows each begins with `eval_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtrain_trainer.stages.results import History, smooth

_ACCURACY = "rewards/accuracies"
_NAMES = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    _ACCURACY,
    "logps/chosen",
    "logps/rejected",
    "kl",
    "mean_reward",
    "min_reward",
    "max_reward",
    "margin",
    "accuracy",
)
_CURVES = {
    "rewards/chosen": "#08519c",
    "rewards/rejected": "#a50f15",
    "rewards/margins": "#238b45",
    "mean_reward": "#08519c",
    "margin": "#238b45",
}
_ACCURACIES = {_ACCURACY: "#08519c", "accuracy": "#08519c"}


def pick(logs: Mapping[str, float]) -> dict[str, float]:
    """Returns what a log of transformers says of rewards; of an SFT run that is nothing.

    `accuracy`, LLaMA-Factory's name for `rewards/accuracies`, stands beside it.
    """
    found = {
        name: logs[name]
        for prefix in ("", "eval_")
        for name in (prefix + each for each in _NAMES)
        if name in logs
    }
    for prefix in ("", "eval_"):
        if prefix + _ACCURACY in found:
            found[f"{prefix}accuracy"] = found[prefix + _ACCURACY]
    return found


def last(history: History) -> dict[str, float]:
    """Returns the rewards of the last training log that has some."""
    logs = [pick(line) for line in history if "loss" in line]
    return next((found for found in reversed(logs) if found), {})


def plot(history: History, title: str, path: Path) -> None:
    """Draws the rewards, and the share of pairs in which they are right, over the steps.

    Args:
        history: The logs of the whole run.
        title: Stands above the plot.
        path: The PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # Late, and without a display.
    from matplotlib.figure import Figure

    panels = [
        (label, {name: color for name, color in curves.items() if _logged(history, name)})
        for label, curves in (("reward", _CURVES), ("share of pairs", _ACCURACIES))
    ]
    panels = [(label, curves) for label, curves in panels if curves]  # KTO knows no pairs.
    figure = Figure(figsize=(3 + 5 * len(panels), 5), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (label, curves) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for name, color in curves.items():
            _draw(axes, history, name, color)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        axes.grid(color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _logged(history: History, name: str) -> bool:
    return any(name in line or f"eval_{name}" in line for line in history)


def _draw(axes: Any, history: History, name: str, color: str) -> None:
    """Draws one curve: in training, smoothed, and on held-out rows, as points."""
    training = [(line["step"], line[name]) for line in history if name in line]
    if training:
        steps, values = zip(*training, strict=True)
        axes.plot(steps, values, color=color, linewidth=1, alpha=0.35)
        axes.plot(steps, smooth(values), color=color, linewidth=2, label=name)
    held_out = [(line["step"], line[f"eval_{name}"]) for line in history if f"eval_{name}" in line]
    if held_out:
        steps, values = zip(*held_out, strict=True)
        axes.plot(
            steps, values, "o--", color=color, markersize=4, linewidth=1, label=f"{name}, held out"
        )
