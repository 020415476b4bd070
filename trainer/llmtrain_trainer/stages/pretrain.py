"""Pretraining: transformers' Trainer over a stream of running text; every token is trained."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import get_peft_model
from torch.nn.utils.rnn import pad_sequence

from llmtrain_api.errors import ConfigError
from llmtrain_api.exits import ExitClass
from llmtrain_api.stages.pretrain import Pretrain
from llmtrain_trainer.data import corpus, mixing, shares
from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.data.shares import Mixed
from llmtrain_trainer.data.stream import Sequences, Stream
from llmtrain_trainer.failures import rank_of_process
from llmtrain_trainer.stages import flow
from llmtrain_trainer.stages.flow import Parts, Recorded, Stage
from llmtrain_trainer.workdir import Job

logger = logging.getLogger(__name__)

_NOISE = 1e-3  # Of the largest logit: what may come from sums in another order.
_ANY_TOKEN = 0  # Fills a batch up: no token attends to what comes after it, no loss falls there.


class Trainer(Recorded, transformers.Trainer):
    """transformers' trainer, recorded; it counts tokens and those said right, as TRL's do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._metrics: dict[str, dict[str, list[float]]] = {"eval": {}}
        super().__init__(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Returns the batches of one step and the tokens in them, over all processes."""
        batches, tokens = super().get_batch_samples(*args, **kwargs)
        if tokens is not None:
            self._total_train_tokens = self._total_train_tokens + torch.as_tensor(tokens).long()
        return batches, tokens

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Returns the loss; of held-out sequences, the share of tokens said right is kept."""
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if not model.training and outputs.logits is not None:
            targets = inputs["shift_labels"]
            trained = targets != IGNORED
            right = (outputs.logits.argmax(-1) == targets) & trained
            share = right.sum() / trained.sum().clamp(min=1)
            self._metrics["eval"]["mean_token_accuracy"] = [share.item()]
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs `logs`, with the tokens beside a training loss."""
        if "loss" in logs:
            logs["num_tokens"] = int(self._total_train_tokens)
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
    model: Any = parts.model
    if parts.lora is not None:
        # transformers' Trainer sets the seed too late for what is drawn here.
        transformers.set_seed(spec.require_training().seed)
        model = get_peft_model(model, parts.lora)
    trainer = Trainer(
        model=model,
        args=parts.config,
        data_collator=Collator(flat=flash and isolate),
        train_dataset=_sequences(parts, length, isolate=isolate),
        eval_dataset=held_out,
        processing_class=parts.tokenizer,
        callbacks=parts.callbacks,
    )
    if isolate:
        _check_isolation(trainer, parts.model.config.model_type)
    return trainer


def _sequences(parts: Parts, length: int, *, isolate: bool) -> Sequences | Mixed:
    """Returns the sequences of an epoch: all of them, or by the weights of their sources."""
    account, spec = parts.prepared.account_of(parts.job), parts.job.run.spec
    stream = Stream(parts.prepared.folder, corpus.TRAIN)
    chosen = mixing.drawn(account, spec) if account is not None else None
    if account is None or chosen is None:
        return Sequences(stream, length, isolate=isolate)
    if rank_of_process() == 0:
        told = mixing.summary(account, spec, chosen)
        logger.info("sequences of an epoch: %s", json.dumps(told))
    sizes = [dataset.tokens for dataset in account.datasets]
    seed = spec.require_training().seed
    return shares.mix(stream, length, isolate=isolate, sizes=sizes, counts=chosen, seed=seed)


def _check_isolation(trainer: Trainer, model_type: str) -> None:
    """Holds the model to what is promised: not every kind of model tells documents by positions.

    Raises:
        ConfigError: What a document begins with changes what the model says of the next one.
    """
    trainer.model.eval()  # Draws no random numbers; training sets it back.
    said = []
    for first in ([1, 2, 3, 4], [4, 3, 2, 1]):
        ids, positions = np.array([*first, 5, 6, 7, 8]), np.array([0, 1, 2, 3] * 2)
        sequence = {"input_ids": ids, "targets": ids, "position_ids": positions}
        batch = trainer._prepare_inputs(trainer.data_collator([sequence]))
        with torch.no_grad(), trainer.compute_loss_context_manager():
            _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
        said.append(outputs.logits[0, 4:].float())
    difference = (said[0] - said[1]).abs().max()
    if difference > _NOISE * said[0].abs().max():
        raise ConfigError(
            "pretrain.isolateDocuments",
            f"a model of the kind {model_type} lets documents that share a sequence see each other",
            "set it to false",
        )
