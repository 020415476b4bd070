"""The curves of a run as images, below `plots/`: each that the run has logged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtrain_trainer.stages.results import History

_BLUE, _RED, _GREEN, _ORANGE = "#08519c", "#a50f15", "#238b45", "#d94801"


@dataclass(frozen=True)
class Panel:
    """A system of axes."""

    label: str
    """What stands at the vertical axis."""
    curves: Mapping[str, str]
    """The colour of each value of the log; `eval_` before its name is the same on held-out rows."""

    def logged(self, history: History) -> Panel:
        """Returns it with those curves alone that `history` has."""
        names = {name for line in history for name in line}
        there = {
            name: colour
            for name, colour in self.curves.items()
            if name in names or f"eval_{name}" in names
        }
        return Panel(self.label, there)


_PLOTS = {
    "training_loss.png": ("loss", [Panel("loss", {"loss": _BLUE})]),
    "training_eval_loss.png": ("loss on held-out rows", [Panel("loss", {"eval_loss": _ORANGE})]),
    "training_learning_rate.png": (
        "learning rate",
        [Panel("learning rate", {"learning_rate": _BLUE})],
    ),
    "training_grad_norm.png": (
        "norm of the gradient before it is clipped",
        [Panel("norm", {"grad_norm": _BLUE})],
    ),
    "training_token_accuracy.png": (
        "tokens that were the likeliest",
        [Panel("share of tokens", {"mean_token_accuracy": _BLUE})],
    ),
    "training_rewards.png": (
        "rewards",
        [
            Panel(
                "reward",
                {
                    "rewards/chosen": _BLUE,
                    "rewards/rejected": _RED,
                    "rewards/margins": _GREEN,
                    "mean_reward": _BLUE,
                    "margin": _GREEN,
                },
            ),
            # KTO knows no pairs, so it has no such panel.
            Panel("share of pairs", {"rewards/accuracies": _BLUE, "accuracy": _BLUE}),
        ],
    ),
}


def write_all(history: History, run: str, folder: Path) -> list[str]:
    """Draws every plot that `history` has a curve for, and always that of the loss.

    Args:
        history: The logs of the whole run.
        run: The run's name, for the titles.
        folder: Where the images go.

    Returns:
        The names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (title, panels) in _PLOTS.items():
        logged = [panel for panel in (each.logged(history) for each in panels) if panel.curves]
        if logged or name == "training_loss.png":
            _draw(history, f"{run}: {title}", logged or panels, folder / name)
            written.append(name)
    return written


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns an exponential moving average whose memory grows with the number of points.

    The weight of the past goes from 0 (no points) towards 0.9, as in LLaMA-Factory's plots.
    """
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(losses))) - 0.5)
    smoothed: list[float] = []
    for loss in losses:
        smoothed.append(loss if not smoothed else weight * smoothed[-1] + (1 - weight) * loss)
    return smoothed


def _draw(history: History, title: str, panels: Sequence[Panel], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # Late, and without a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 + 5 * len(panels), 5), layout="constrained")
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for name, colour in panel.curves.items():
            _draw_curve(axes, history, name, colour)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(panel.label)
        axes.grid(color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _draw_curve(axes: Any, history: History, name: str, colour: str) -> None:
    """Draws a value in training, raw and smoothed, and on held-out rows, as points."""
    training = list(_points(history, name))
    if training and name.startswith("eval_"):
        axes.plot(*_columns(training), "o-", color=colour, markersize=4, label="held out")
    elif name == "learning_rate":
        axes.plot(*_columns(training), color=colour, linewidth=2)
    elif training:
        steps, values = _columns(training)
        axes.plot(steps, values, color=colour, linewidth=1, alpha=0.35, label=f"{name}, as logged")
        axes.plot(steps, smooth(values), color=colour, linewidth=2, label=f"{name}, smoothed")
    if held_out := list(_points(history, f"eval_{name}")):
        own = _ORANGE if name == "loss" else colour
        label = f"{name}, held out"
        axes.plot(*_columns(held_out), "o--", color=own, markersize=4, linewidth=1, label=label)


def _points(history: History, name: str) -> Iterator[tuple[float, float]]:
    """Yields the step and the value of each log that has it as a finite number."""
    for line in history:
        value = line.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield line["step"], float(value)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    steps, values = zip(*points, strict=True)
    return list(steps), list(values)
