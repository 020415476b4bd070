"""The chain's numbers as a table and as plots; imports nothing of llmtrain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Log = Sequence[Mapping[str, float]]
"""A run's `trainer_log.jsonl`, a mapping per line."""

NEEDED_IMPROVEMENT = 0.1  # Of SFT, on its base's held-out loss.
STEP_0_TOLERANCE = 1e-3  # Nats.


class Claim(NamedTuple):
    """One line of the table."""

    stage: str
    what: str
    measured: str
    wanted: str
    holds: bool


def claims(numbers: Mapping[str, Any]) -> list[Claim]:
    """Returns what the chain shows, each with what was measured and whether it holds."""
    better = 1 - numbers["sft_loss"] / numbers["sft_base_loss"]
    return [
        Claim(
            "Tokenizer",
            f"held-out text, {numbers['bytes_per_token']:.2f} bytes per token",
            "comes back as it was" if numbers["round_trip"] else "comes back changed",
            "comes back as it was",
            numbers["round_trip"],
        ),
        Claim(
            "Pretrain",
            "held-out loss, nats per token",
            f"{numbers['pretrain_loss']:.3f}",
            f"below {numbers['bigram_loss']:.3f}, of a bigram model",
            numbers["pretrain_loss"] < numbers["bigram_loss"],
        ),
        Claim(
            "SFT",
            "held-out loss of answers",
            f"{numbers['sft_loss']:.3f} ({-better:+.0%})",
            f"10 % below {numbers['sft_base_loss']:.3f}, of its base",
            numbers["sft_loss"] <= (1 - NEEDED_IMPROVEMENT) * numbers["sft_base_loss"],
        ),
        Claim(
            "DPO",
            "loss before the first step",
            f"{numbers['dpo_first_loss']:.5f}",
            f"ln 2 = {math.log(2):.5f} +- {STEP_0_TOLERANCE}",
            abs(numbers["dpo_first_loss"] - math.log(2)) <= STEP_0_TOLERANCE,
        ),
        Claim(
            "DPO",
            f"right answer preferred, {numbers['dpo_pairs']} held-out pairs",
            f"{numbers['dpo_accuracy']:.1%} (95 %: at least {numbers['dpo_accuracy_lower']:.1%})",
            "at least 50 % with 95 % confidence",
            numbers["dpo_accuracy_lower"] > 0.5,
        ),
    ]


def table(rows: Sequence[Claim]) -> str:
    """Returns the claims as a table in Markdown, in columns that are aligned."""
    head = ("stage", "what", "measured", "wanted", "holds")
    lines = [head, *((*row[:-1], "yes" if row.holds else "NO") for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]]) + "\n"


def plot(logs: Mapping[str, Log], numbers: Mapping[str, float], path: Path) -> None:
    """Draws the loss of each training stage over its steps, with what it is held against."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # No display is needed.
    from matplotlib.figure import Figure

    lines = {
        "pretrain": ("a bigram model, held out", numbers["bigram_loss"]),
        "sft": ("its base, held out", numbers["sft_base_loss"]),
        "dpo": ("ln 2", math.log(2)),
    }
    figure = Figure(figsize=(4.5 * len(logs), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (stage, log) in zip(figure.subplots(1, len(logs)), logs.items(), strict=True):
        for name, label, style in (
            ("loss", "training loss", {"color": "#08519c", "linewidth": 1}),
            ("eval_loss", "held out by the run", {"color": "#d94801", "marker": "o"}),
        ):
            points = [(line["current_steps"], line[name]) for line in log if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, **style)
        label, level = lines[stage]
        axes.axhline(level, color="#636363", linestyle="--", label=label)
        axes.set_title(f"chain-{stage}", loc="left")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss, nats")
        axes.grid(color="#e5e5e5", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
