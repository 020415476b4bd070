"""Kahneman-Tversky optimisation: TRL's KTOTrainer over answers that are good or bad."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import datasets
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.utils import global_then_local_main_first

from llmtrain_api.exits import ExitClass
from llmtrain_api.stages.preference import KTO
from llmtrain_trainer.data import preferences
from llmtrain_trainer.stages import flow, reference
from llmtrain_trainer.stages.flow import Parts, Recorded, Stage
from llmtrain_trainer.workdir import Job

if TYPE_CHECKING:
    from trl.trainer.kto_config import KTOConfig

logger = logging.getLogger(__name__)

# How much good answers may weigh over bad ones: section 4.2 of KTO's paper, a little below its 1.
_LOWEST_SHARE, _HIGHEST_SHARE = 0.95, 4 / 3


class Trainer(Recorded, KTOTrainer):
    """TRL's trainer, recorded, over rows that are tokens already."""

    def _prepare_dataset(
        self, dataset: datasets.Dataset, _: Any, args: Any, name: str
    ) -> datasets.Dataset:
        """Returns the rows in the order of training, each with the answer of a neighbour.

        TRL trains them in the order in which they stand, since the pairs of neighbours are made
        beforehand, one batch at a time; so they are shuffled here, once.
        """
        with global_then_local_main_first():
            if name == "train":
                dataset = dataset.shuffle(seed=args.seed)
            if self.calculate_KL:
                dataset = dataset.map(
                    with_neighbours, batched=True, batch_size=args.per_device_train_batch_size
                )
        return dataset

    def _precompute_ref_logps(
        self, dataset: datasets.Dataset, name: str, batch_size: int
    ) -> datasets.Dataset:
        names = ("ref_logps", "ref_KL_logps")[: 2 if self.calculate_KL else 1]
        return reference.with_log_probs(self, dataset, batch_size, names)


def run(job: Job, folder: Path) -> ExitClass:
    """Trains as `job` says, in this process; see `flow.run`."""
    return flow.run(job, folder, Stage(preferences.prepare_answers, _build))


def with_neighbours(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Returns the rows of a batch, each with the answer of the row before it as well.

    By these pairs of a prompt and an answer to another one TRL estimates how far the model has
    moved from the reference.
    """
    answers = rows["completion_ids"]
    return {**rows, "KL_completion_ids": [answers[-1], *answers[:-1]]}


def advise(good: int, bad: int, settings: KTO) -> str | None:
    """Returns what to change where good and bad answers do not weigh about the same, or none.

    Args:
        good: Number of good answers to train on.
        bad: Number of bad ones.
        settings: The weights.
    """
    weight_of_bad = max(bad, 1) * settings.undesirable_weight
    weight_of_good = max(good, 1) * settings.desirable_weight
    if not weight_of_bad or not weight_of_good:
        return None  # Left out on purpose.
    if _LOWEST_SHARE <= weight_of_good / weight_of_bad <= _HIGHEST_SHARE:
        return None
    return (
        f"{good} good and {bad} bad answers weigh {weight_of_good:g} to {weight_of_bad:g}; KTO's"
        " paper finds 1 to 1 up to 4 to 3 best: for that set kto.desirableWeight to"
        f" {weight_of_bad / max(good, 1):.3g}"
    )


def _build(parts: Parts) -> Trainer:
    settings = parts.job.run.spec.kto or KTO()
    rows = parts.train_rows()
    good = sum(rows["label"])
    if advice := advise(good, len(rows) - good, settings):
        logger.warning("%s", advice)
    trainer = Trainer(
        model=parts.model,
        ref_model=reference.load_reference(parts, settings),
        args=cast("KTOConfig", parts.config),
        train_dataset=rows,
        eval_dataset=parts.held_out_rows(),
        processing_class=parts.tokenizer,
        peft_config=parts.lora,
        callbacks=parts.callbacks,
    )
    if settings.precompute_ref_log_probs:
        reference.forget(trainer)
    return trainer
