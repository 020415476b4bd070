"""Keeps the best model: a checkpoint whenever it gets better, an end when it does not any more."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmtrain_api.datasets import Evaluation
from llmtrain_trainer.best import Best, best
from llmtrain_trainer.failures import local_rank_of_process
from llmtrain_trainer.stages.callbacks import check_weights
from llmtrain_trainer.stages.results import in_json

if TYPE_CHECKING:
    from llmtrain_trainer.stages.flow import Recorded

logger = logging.getLogger(__name__)

_STEP = "step"


class KeepBest(TrainerCallback):
    """Follows `evaluation.metricForBestModel`; stands before what logs.

    Args:
        evaluation: What the run says of it.
        folder: The working folder, which takes the best weights where they are wanted at the end.
    """

    def __init__(self, evaluation: Evaluation | None, folder: Path) -> None:
        self._metric = evaluation.metric_for_best_model if evaluation is not None else None
        self._patience = evaluation.early_stopping_patience if evaluation is not None else None
        self._wanted = evaluation is not None and evaluation.load_best_model_at_end
        self._weights = folder / "best.safetensors"

    def best(self, state: TrainerState) -> Best | None:
        """Returns the best evaluation so far."""
        return best(state.log_history, self._metric) if self._metric is not None else None

    def numbers(self, state: TrainerState, step: int) -> dict[str, Any]:
        """Returns what the results say of it, given the step of the final weights."""
        found = self.best(state)
        if found is None:
            return {}
        return {
            "best_metric": f"eval_{self._metric}",
            "best_step": found.step,
            "best_value": in_json(found.value),
            "model_step": step,
            "stopped_early": state.global_step < state.max_steps,
        }

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Trains no more where training had ended early before it was interrupted."""
        found = self.best(state)
        if found is None:
            return
        control.should_training_stop = self._is_over(found)
        if found.step == state.global_step and model is not None:
            self._keep(model, found.step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the best step so far to the log of an evaluation."""
        found = self.best(state)
        if logs is not None and "eval_loss" in logs and found is not None:
            logs["best_step"] = found.step

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Asks for a checkpoint of a model that is better, or ends training in time."""
        found = self.best(state)
        if found is None or model is None:
            return
        if found.step == state.global_step:
            check_weights(model, found.step)
            self._keep(model, found.step)
            control.should_save = True
        elif self._is_over(found):
            logger.info(
                "training ends early: none of %d evaluations was better than %s = %.6g of step %d",
                found.later,
                self._metric,
                found.value,
                found.step,
            )
            control.should_training_stop = control.should_save = control.should_log = True

    def _is_over(self, found: Best) -> bool:
        return self._patience is not None and found.later >= self._patience

    def _keep(self, model: torch.nn.Module, step: int) -> None:
        """Writes the trained weights, once per node."""
        if not self._wanted or local_rank_of_process() != 0:
            return
        draft = self._weights.with_suffix(".tmp")
        weights = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        save_file(weights, draft, metadata={_STEP: str(step)})
        draft.replace(self._weights)

    def load(self, trainer: Recorded, checkpoint: str | None) -> int:
        """Puts the best weights into the model, where that is asked for.

        Args:
            trainer: Whose training is over.
            checkpoint: Folder of the best checkpoint of earlier attempts.

        Returns:
            The step of the weights that the model has now.
        """
        now, found = trainer.state.global_step, self.best(trainer.state)
        if not self._wanted or found is None or found.step == now:
            return now
        trainer.accelerator.wait_for_everyone()
        if self._weights.exists() and _load(trainer.model, self._weights, found.step):
            return found.step
        if checkpoint is not None and checkpoint.endswith(f"-{found.step}"):
            trainer._load_from_checkpoint(checkpoint)
            return found.step
        logger.warning(
            "the weights of the best step, %d, are in no checkpoint: the result is the last model",
            found.step,
        )
        return now


def _load(model: torch.nn.Module, path: Path, step: int) -> bool:
    """Copies the weights of `path` into a model; returns whether they are those of `step`."""
    with safe_open(path, framework="pt") as file:
        if file.metadata()[_STEP] != str(step):
            return False
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(file.get_tensor(name))
    return True
