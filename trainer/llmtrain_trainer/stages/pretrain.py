"""Pretraining: transformers' Trainer over a stream of running text; every token is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model
from torch.nn.utils.rnn import pad_sequence

from llmtrain_api.exits import ExitClass
from llmtrain_api.stages.pretrain import Pretrain
from llmtrain_trainer.data import corpus
from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.data.stream import Sequences, Stream
from llmtrain_trainer.stages import flow
from llmtrain_trainer.stages.flow import Parts, Recorded, Stage
from llmtrain_trainer.workdir import Job

_ANY_TOKEN = 0  # Fills a batch up: no token attends to what comes after it, no loss falls there.


class Trainer(Recorded, transformers.Trainer):
    """transformers' trainer, recorded; its logs say how many tokens it has trained."""

    _tokens: torch.Tensor | int = 0  # On the device until it is logged.

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Returns the batches of one step and the tokens in them, over all processes."""
        batches, tokens = super().get_batch_samples(*args, **kwargs)
        if tokens is not None:
            self._tokens = self._tokens + torch.as_tensor(tokens).long()
        return batches, tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs `logs`, with the tokens beside a training loss."""
        if "loss" in logs:
            logs["num_tokens"] = int(self._tokens)
        super().log(logs, start_time)


def run(job: Job, folder: Path) -> ExitClass:
    """Trains as `job` says, in this process; see `flow.run`."""
    return flow.run(job, folder, Stage(corpus.prepare, _build))


class Collator:
    """Makes batches of sequences.

    There is no attention mask: by `position_ids` alone, which begin anew with each document,
    transformers keeps documents apart. A mask, or a cache, would make it pass them over.

    Args:
        flat: Lay the sequences of a batch one after the other in one row, where flash attention
            looks for documents, instead of one below the other.
    """

    def __init__(self, *, flat: bool = False) -> None:
        self._flat = flat

    def __call__(self, sequences: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Returns the batch: each of shape (sequences, longest of them), or (1, all tokens).

        `shift_labels` are what the positions are trained to say; the loss reads them instead of
        moving `labels` by one place, which would lose the target of each sequence's last token.
        """
        batch = {
            "input_ids": self._join(sequences, "input_ids", _ANY_TOKEN),
            "labels": self._join(sequences, "input_ids", IGNORED),
            "shift_labels": self._join(sequences, "targets", IGNORED),
        }
        if "position_ids" in sequences[0]:
            batch["position_ids"] = self._join(sequences, "position_ids", 0)
        return batch

    def _join(
        self, sequences: Sequence[Mapping[str, Any]], name: str, padding: int
    ) -> torch.Tensor:
        rows = [torch.from_numpy(sequence[name]) for sequence in sequences]
        if self._flat:
            return torch.cat(rows).unsqueeze(0)
        return pad_sequence(rows, batch_first=True, padding_value=padding)


def _build(parts: Parts) -> Trainer:
    spec, folder = parts.job.run.spec, parts.prepared.folder
    isolate = (spec.pretrain or Pretrain()).isolate_documents
    length = spec.require_training().max_length
    flash = "flash" in (parts.model.config._attn_implementation or "")
    held_out = None
    if spec.evaluation is not None:
        held_out = Sequences(Stream(folder, corpus.HELD_OUT), length, isolate=isolate)
    return Trainer(
        model=parts.model if parts.lora is None else get_peft_model(parts.model, parts.lora),
        args=parts.config,
        data_collator=Collator(flat=flash and isolate),
        train_dataset=Sequences(Stream(folder, corpus.TRAIN), length, isolate=isolate),
        eval_dataset=held_out,
        processing_class=parts.tokenizer,
        callbacks=parts.callbacks,
    )
