"""Beside a trainer: what held-out rows measure is the same number on every topology.

Each row is read once, by one process. Numbers of batches are kept apart until the end, each with
what it was a mean over (tokens, rows, answers), and then weighed by that. transformers takes the
mean over batches of their means instead, with the last ones filled up: a number that depends on how
the rows happen to be batched. Where one batch holds all rows, both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate.utils import gather_object
from transformers.trainer_utils import EvalLoopOutput

from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.stages.deal import Deal
from llmtrain_trainer.stages.results import in_json, perplexity

if TYPE_CHECKING:
    _Base = transformers.Trainer
else:
    _Base = object

_MEANS_OVER = {
    "entropy": ("tokens",),
    "mean_token_accuracy": ("chosen_tokens", "tokens"),
    "logits/chosen": ("chosen_tokens",),
    "logits/rejected": ("rejected_tokens",),
    "logps/chosen": ("chosen", "rows"),
    "logps/rejected": ("rejected", "rows"),
    "rewards/chosen": ("chosen", "rows"),
    "rewards/rejected": ("rejected", "rows"),
}
"""What TRL's numbers of a batch are means over: the first of these that is counted. Default: rows.
"""
_EXTREMES = {"min_reward": min, "max_reward": max}
_NOT_MEASURED = ("num_tokens",)  # Those of training, which TRL repeats here.


@dataclass(frozen=True)
class Part:
    """What one batch measured."""

    values: Mapping[str, float]
    """Means over the batch, the loss among them."""

    counts: Mapping[str, float]
    """What they are means over: `loss` (tokens or rows, whichever the stage's loss is a mean over),
    `rows`, `tokens`, and in preference stages the chosen and the rejected."""


class Measured(_Base):
    """Stands before a trainer of transformers or TRL in a class's bases."""

    _metrics: Any  # TRL's numbers of each batch: by `train` or `eval`, then by name.
    _parts: list[Part]
    _held_out: Deal

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Measures rows; every process returns the same numbers."""
        world = self.args.world_size
        self._parts = []
        self._held_out = Deal(len(dataloader.dataset), self.args.eval_batch_size, world)
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        metrics: Any = output.metrics
        for name, value in merge(gather_object(self._parts)).items():
            metrics[f"{prefix}_{name}"] = value
        return output

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Measures a batch, by this process alone."""
        rows = self._held_out.shares(len(self._parts))[self.args.process_index]
        counts = count(inputs, rows)
        with alone(self.accelerator, self.args):
            result = super().prediction_step(model, inputs, *args, **kwargs)
        values = {name: found[-1] for name, found in self._metrics["eval"].items()}
        self._metrics["eval"].clear()
        loss: Any = result[0]
        self._parts.append(Part({**values, "loss": float(loss)}, counts))
        return result


def count(inputs: Mapping[str, Any], rows: int) -> dict[str, float]:
    """Returns what the numbers of a batch are means over.

    Args:
        inputs: The batch, as its collator made it.
        rows: Rows in it that are not there to fill it.
    """
    labels = inputs.get("shift_labels")
    if labels is None and "labels" in inputs:
        labels = inputs["labels"][..., 1:]  # Nothing comes before the first token.
    if labels is not None:
        tokens = int((labels != IGNORED).sum())
        return {"loss": tokens, "tokens": tokens, "rows": rows}
    found: dict[str, float] = {"loss": rows, "rows": rows}
    mask = inputs.get("completion_mask")
    if mask is None or not rows:
        return found
    mask = mask[:, 1:].cpu()
    if "label" in inputs:  # KTO: each answer is good or bad.
        good = torch.as_tensor(inputs["label"], dtype=torch.bool).cpu()
        chosen, rejected = mask[good], mask[~good]
        found |= {"chosen": len(chosen), "rejected": len(rejected)}
    else:
        chosen, rejected = mask.chunk(2)
    found |= {"chosen_tokens": int(chosen.sum()), "rejected_tokens": int(rejected.sum())}
    return {**found, "tokens": int(mask.sum())}


def merge(parts: Sequence[Part]) -> dict[str, float]:
    """Returns the numbers of all rows, given those of all batches, in any order."""
    read = [part for part in parts if part.counts["rows"]]
    names = sorted({name for part in read for name in part.values} - {*_NOT_MEASURED})
    merged: dict[str, float] = {}
    for name in names:
        if name in _EXTREMES:
            merged[name] = _EXTREMES[name](part.values[name] for part in read)
        elif (mean := _mean(read, name)) is not None:
            merged[name] = mean
    if any("chosen" in part.counts for part in read):  # No pairs: the difference of the means.
        _set_margin(merged)
    if any("tokens" in part.counts and "chosen_tokens" not in part.counts for part in read):
        merged["perplexity"] = perplexity(merged["loss"])
    return merged


def _mean(parts: Sequence[Part], name: str) -> float | None:
    over = ("loss",) if name == "loss" else _MEANS_OVER.get(name, ())
    weighed: list[tuple[float, float]] = []
    for part in parts:
        kind = next((each for each in over if each in part.counts), "rows")
        if name in part.values and part.counts[kind]:
            weighed.append((part.values[name], part.counts[kind]))
    if not weighed:
        return None
    # Rounded once, so that the order of the batches does not count.
    total = math.fsum(weight for _, weight in weighed)
    return math.fsum(value * weight for value, weight in weighed) / total


def _set_margin(merged: dict[str, float]) -> None:
    merged.pop("rewards/margins", None)
    if {"rewards/chosen", "rewards/rejected"} <= merged.keys():
        merged["rewards/margins"] = merged["rewards/chosen"] - merged["rewards/rejected"]


def logged(logs: Mapping[str, float]) -> dict[str, float | str]:
    """Returns what a line of the training log says of tokens, and of the best model."""
    found: dict[str, float | str] = {}
    for name in ("token_accuracy", "eval_token_accuracy"):
        theirs = name.replace("token", "mean_token")
        if theirs in logs:
            found[name] = logs[theirs]
    if "best_step" in logs:
        found["best_step"] = logs["best_step"]
    if "eval_perplexity" in logs:
        found["eval_perplexity"] = in_json(logs["eval_perplexity"])
    return found


@contextmanager
def alone(accelerator: Any, args: Any) -> Iterator[None]:
    """Lets a trainer take this process's numbers for those of all, meanwhile.

    Args:
        accelerator: Gathers nothing.
        args: The trainer's arguments: its loss is not made one of all processes.
    """
    of_all = args.average_tokens_across_devices
    accelerator.gather = accelerator.gather_for_metrics = lambda tensor, *_, **__: tensor
    args.average_tokens_across_devices = False
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics
        args.average_tokens_across_devices = of_all
