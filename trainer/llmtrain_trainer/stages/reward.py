"""A reward model: TRL's RewardTrainer over pairs of conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import datasets
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed
from trl.trainer.reward_trainer import RewardTrainer, suppress_seqcls_warning

from llmtrain_api.exits import ExitClass
from llmtrain_trainer.data import preferences
from llmtrain_trainer.stages import flow
from llmtrain_trainer.stages.devices import Device, Precision
from llmtrain_trainer.stages.flow import Parts, Recorded, Stage
from llmtrain_trainer.stages.loading import load_model
from llmtrain_trainer.workdir import Job

if TYPE_CHECKING:
    from trl.trainer.reward_config import RewardConfig


class Trainer(Recorded, RewardTrainer):
    """TRL's trainer, recorded, over rows that are tokens already."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *_: Any) -> datasets.Dataset:
        return dataset


def run(job: Job, folder: Path) -> ExitClass:
    """Trains as `job` says, in this process; see `flow.run`."""
    return flow.run(job, folder, Stage(preferences.prepare_conversations, _build, _load))


def _load(job: Job, device: Device, precision: Precision) -> PreTrainedModel:
    """Returns the model with a head that gives one number, new unless the model has one."""
    set_seed(job.run.spec.require_training().seed)
    with suppress_seqcls_warning():
        return load_model(job, device, precision, AutoModelForSequenceClassification, num_labels=1)


def _build(parts: Parts) -> Trainer:
    trainer = Trainer(
        model=parts.model,
        args=cast("RewardConfig", parts.config),
        train_dataset=parts.train_rows(),
        eval_dataset=parts.held_out_rows(),
        processing_class=parts.tokenizer,
        peft_config=parts.lora,
        callbacks=parts.callbacks,
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # The head beside an adapter has the number format of the base.
            parameter.data = parameter.data.float()
    return trainer
