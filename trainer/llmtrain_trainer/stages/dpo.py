"""Direct preference optimisation: TRL's DPOTrainer over pairs that preferences.py has encoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import datasets
from trl.trainer.dpo_trainer import DPOTrainer

from llmtrain_api.exits import ExitClass
from llmtrain_api.stages.preference import DPO
from llmtrain_trainer.data import preferences
from llmtrain_trainer.stages import flow, reference
from llmtrain_trainer.stages.flow import Parts, Recorded, Stage
from llmtrain_trainer.workdir import Job

if TYPE_CHECKING:
    from trl.trainer.dpo_config import DPOConfig


class Trainer(Recorded, DPOTrainer):
    """TRL's trainer, recorded, over rows that are tokens already."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *_: Any) -> datasets.Dataset:
        return dataset

    def _precompute_ref_logps(
        self, dataset: datasets.Dataset, name: str, batch_size: int
    ) -> datasets.Dataset:
        names = ("ref_chosen_logps", "ref_rejected_logps")
        return reference.with_log_probs(self, dataset, batch_size, names)


def run(job: Job, folder: Path) -> ExitClass:
    """Trains as `job` says, in this process; see `flow.run`."""
    return flow.run(job, folder, Stage(preferences.prepare_answers, _build))


def _build(parts: Parts) -> Trainer:
    settings = parts.job.run.spec.dpo or DPO()
    trainer = Trainer(
        model=parts.model,
        ref_model=reference.load_reference(parts, settings),
        args=cast("DPOConfig", parts.config),
        train_dataset=parts.train_rows(),
        eval_dataset=parts.held_out_rows(),
        processing_class=parts.tokenizer,
        peft_config=parts.lora,
        callbacks=parts.callbacks,
    )
    if settings.precompute_ref_log_probs:
        reference.forget(trainer)
    return trainer
