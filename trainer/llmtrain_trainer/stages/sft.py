"""Supervised fine-tuning: TRL's SFTTrainer over rows that chat.py has turned into tokens."""

from __future__ import annotations

from pathlib import Path

from trl.trainer.sft_trainer import SFTTrainer

from llmtrain_api.exits import ExitClass
from llmtrain_trainer.data import tokens
from llmtrain_trainer.stages import flow
from llmtrain_trainer.stages.flow import Parts, Recorded, Stage
from llmtrain_trainer.workdir import Job


class Trainer(Recorded, SFTTrainer):
    """TRL's trainer, recorded."""


def run(job: Job, folder: Path) -> ExitClass:
    """Trains as `job` says, in this process; see `flow.run`."""
    return flow.run(job, folder, Stage(tokens.prepare, _build))


def _build(parts: Parts) -> Trainer:
    return Trainer(
        model=parts.model,
        args=parts.config,
        train_dataset=parts.train_rows(),
        eval_dataset=parts.held_out_rows(),
        processing_class=parts.tokenizer,
        peft_config=parts.lora,
        callbacks=parts.callbacks,
    )
