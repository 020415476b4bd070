"""What happens beside training: logs, the guard against NaN, checkpoints' marks, and stopping.

Each callback runs in the training loop of every process, so it must cost next to nothing and must
do the same in all processes wherever it changes the course of training.
"""

from __future__ import annotations

import json
import logging
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmtrain_trainer import workdir
from llmtrain_trainer.failures import DivergedError
from llmtrain_trainer.stages import efficiency, measure, rewards
from llmtrain_trainer.stages.efficiency import Work
from llmtrain_trainer.stages.pace import Pace
from llmtrain_trainer.workdir import say

logger = logging.getLogger(__name__)


class Guard(TrainerCallback):
    """Ends a run whose numbers are no longer finite, before anything of it is saved.

    Loss and gradient norm are known where they are logged; before each save the weights are
    looked at themselves. All processes hold the same values, so all of them stop.
    """

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Checks the loss and the gradient norm that were just logged."""
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise DivergedError(
                    f"training diverged: {name} is {value} at step {state.global_step}"
                )

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Checks the weights where a save is due after this step."""
        if control.should_save and model is not None:
            check_weights(model, state.global_step)


def check_weights(model: torch.nn.Module, step: int) -> None:
    """Raises DivergedError if a trained weight is NaN or infinite."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise DivergedError(f"training diverged: weight {name} is not finite at step {step}")


class StopOnRequest(TrainerCallback):
    """Saves a checkpoint and ends training once any node's launcher has written the `stop` file.

    All processes must stop at the same step: they exchange one byte per step, over a group of
    their own on the CPU, so that a GPU's queue is not waited for.

    Args:
        folder: The working folder that the launcher writes to.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / workdir.STOP
        self._trained = folder / workdir.TRAINED
        self._group: Any = None
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo")
        self.stopped = False

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Agrees with the other processes on whether this step is the last one."""
        if not self._trained.exists():
            self._trained.touch()
        asked = self._file.exists()
        if self._group is not None:
            vote = torch.tensor([asked], dtype=torch.uint8)
            torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MAX, group=self._group)
            asked = bool(vote.item())
        if asked and state.global_step < state.max_steps:
            self.stopped = True
            control.should_log = True
            control.should_save = True
            control.should_training_stop = True


class Checkpoints(TrainerCallback):
    """Marks each checkpoint with the processes that have written their part of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Says that a save is about to begin."""
        if control.should_save and state.is_world_process_zero:
            say(self._folder, "Saving", f"checkpoint of step {state.global_step}")

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Marks this process's part as whole: transformers calls this after all its writes."""
        checkpoint = self._folder / workdir.checkpoint_folder(state.global_step)
        (checkpoint / workdir.saved_marker(args.process_index)).touch()
        if state.is_world_process_zero:
            logger.info("saved the checkpoint of step %d", state.global_step)
            say(self._folder, "Training")


class TrainingLog(TrainerCallback):
    """Writes one JSON object per logging step, from the first process of the run.

    Names are those of LLaMA-Factory's `trainer_log.jsonl`; numbers are written in full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / workdir.TRAINER_LOG
        self.pace = Pace()
        self.work: Work | None = None
        """Set when the model is known."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Says that training begins."""
        self.pace = Pace(state.num_input_tokens_seen)
        if state.is_world_process_zero:
            say(self._folder, "Training")

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Takes the time; the last step is always logged."""
        self.pace.step()
        if state.global_step >= state.max_steps:
            control.should_log = True
        if control.should_evaluate and state.is_world_process_zero:
            say(self._folder, "Evaluating", f"after step {state.global_step}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Leaves the time of the evaluation out of the pace."""
        self.pace.pause()
        if state.is_world_process_zero:
            say(self._folder, "Training")

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Leaves the time of the save out of the pace."""
        self.pace.pause()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes a line for a training loss or an evaluation."""
        if not state.is_world_process_zero or logs is None:
            return
        if "loss" not in logs and "eval_loss" not in logs:
            return
        line = log_line(logs, state.global_step, state.max_steps, self.pace, self.work)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logger.info("%s", describe(line))


def log_line(
    logs: dict[str, float], step: int, total: int, pace: Pace, work: Work | None = None
) -> dict[str, Any]:
    """Returns one line of the training log; what is not known is left out."""
    seconds_per_step = pace.seconds_per_step
    remaining = None if seconds_per_step is None else seconds_per_step * (total - step)
    line = {
        "current_steps": step,
        "total_steps": total,
        "loss": logs.get("loss"),
        "eval_loss": logs.get("eval_loss"),
        **measure.logged(logs),
        "lr": logs.get("learning_rate"),
        "grad_norm": logs.get("grad_norm"),
        "epoch": logs.get("epoch"),
        **rewards.pick(logs),
        "percentage": round(100 * step / total, 2) if total else 100.0,
        "elapsed_time": _clock(pace.elapsed_seconds),
        "remaining_time": _clock(remaining),
        "seconds_per_step": seconds_per_step,
    }
    if "loss" in logs and "num_tokens" in logs:
        line |= efficiency.numbers_of(pace.read(logs["num_tokens"]), work)
        line |= efficiency.memory()
        line["total_tokens"] = int(logs["num_tokens"])
    return {name: value for name, value in line.items() if value is not None}


def describe(line: dict[str, Any]) -> str:
    """Returns a line of the training log as a person reads it in `kubectl logs`."""
    parts = [f"step {line['current_steps']}/{line['total_steps']}"]
    for name, label, form in (
        ("loss", "loss", ".4f"),
        ("eval_loss", "eval_loss", ".4f"),
        ("accuracy", "accuracy", ".3f"),
        ("eval_accuracy", "eval_accuracy", ".3f"),
        ("rewards/margins", "margin", ".3g"),
        ("grad_norm", "grad_norm", ".3g"),
        ("lr", "lr", ".3g"),
        ("epoch", "epoch", ".2f"),
        ("throughput", "tokens/s", ".0f"),
        ("mfu", "mfu", ".1%"),
        ("data_wait", "waits for data", ".1%"),
    ):
        if name in line:
            parts.append(f"{label} {line[name]:{form}}")
    if line["current_steps"] < line["total_steps"] and "remaining_time" in line:
        parts.append(f"{line['remaining_time']} left")
    return "  ".join(parts)


def _clock(seconds: float | None) -> str | None:
    return None if seconds is None else str(timedelta(seconds=round(seconds)))
