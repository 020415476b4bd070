"""What a model says of rows: the loss of each of them, and the answers that it gives."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedTokenizerBase

from llmtrain_api.stages.evaluate import Evaluate, Predict
from llmtrain_trainer.data.answers import Ids, Measured
from llmtrain_trainer.data.chat import IGNORED


@dataclass(frozen=True)
class Loss:
    """The loss of a row: sums over the tokens that it falls on."""

    total: float
    tokens: int
    correct: int
    """Tokens that the model gave the highest probability."""


class Measuring:
    """A model, and how it is asked.

    Args:
        model: The model of transformers, on its device.
        tokenizer: Its tokenizer.
        settings: The spec's.
        turn_end: The token that ends an answer of the rows, if one is known: generation stops there
            too, as it does at those that the model's own configuration names.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        settings: Evaluate,
        turn_end: int | None,
    ) -> None:
        self._model = model.eval()
        self._seed = settings.seed
        self._ends = ends_of(model.generation_config, tokenizer.eos_token_id, turn_end)
        padding = tokenizer.pad_token_id
        self._padding = int(padding if padding is not None else min(self._ends, default=0))
        if settings.predict is not None:
            self._generation = generation_config(settings.predict, self._ends, self._padding)

    @torch.no_grad()
    def losses(self, rows: Sequence[Measured]) -> list[Loss]:
        """Returns the loss of each row of a batch."""
        ids, mask = self._batch([row.input_ids for row in rows], side="right")
        labels = _pad([row.labels for row in rows], IGNORED, "right").to(ids.device)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        targets = labels[:, 1:]
        measured = targets != IGNORED
        chosen = logits[:, :-1][measured].float()  # No more than counts: a vocabulary is wide.
        losses: Any = functional.cross_entropy(chosen, targets[measured], reduction="none").double()
        correct: Any = chosen.argmax(dim=-1) == targets[measured]
        counts = measured.sum(dim=1).tolist()
        parts = zip(losses.split(counts), correct.split(counts), counts, strict=True)
        return [Loss(one.sum().item(), count, int(right.sum())) for one, right, count in parts]

    @torch.no_grad()
    def answers(self, rows: Sequence[Measured]) -> list[list[int]]:
        """Returns the answer to the question of each row of a batch, without what ends it.

        With sampling it is a function of the seed and the rows of the batch.
        """
        prompts = [row.question.prompt for row in rows if row.question is not None]
        ids, mask = self._batch(prompts, side="left")
        transformers.set_seed(self._seed ^ zlib.crc32(repr(rows[0].key).encode()))
        said = self._model.generate(
            input_ids=ids, attention_mask=mask, generation_config=self._generation
        )
        return [until(self._ends, answer) for answer in said[:, ids.shape[1] :].tolist()]

    def _batch(self, rows: Sequence[Ids], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns token ids and their mask, each of shape (rows, longest of them)."""
        ids = _pad(rows, self._padding, side)
        mask = _pad([row * 0 + 1 for row in rows], 0, side)
        return ids.to(self._model.device), mask.to(self._model.device)


def _pad(rows: Sequence[Ids], padding: int, side: str) -> torch.Tensor:
    tensors = [torch.from_numpy(row).long() for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=padding, padding_side=side)


def until(ends: set[int], answer: Sequence[int]) -> list[int]:
    """Returns an answer up to the first token that ends it."""
    end = next((place for place, token in enumerate(answer) if token in ends), len(answer))
    return list(answer[:end])


def ends_of(
    own: GenerationConfig | None, end_of_sequence: int | None, turn_end: int | None
) -> set[int]:
    """Returns the tokens at which generation stops."""
    ends = own.eos_token_id if own is not None else None
    known = ends if isinstance(ends, list) else [ends]
    return {token for token in (*known, end_of_sequence, turn_end) if token is not None}


def generation_config(predict: Predict, ends: set[int], padding: int) -> GenerationConfig:
    """Returns what is said of generation; the model's own configuration says the rest."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        **predict.model_dump(exclude_none=True),
        eos_token_id=sorted(ends) or None,
        pad_token_id=padding,
        num_return_sequences=1,
        return_dict_in_generate=False,
        use_cache=True,
    )


def batches(rows: Sequence[Measured], size: int) -> list[list[Measured]]:
    """Returns rows in batches of like length.

    The batch with the longest rows is the first, so that what does not fit in memory fails at once.
    The others come in an order by chance, the same each time, so that the pace tells when it ends.
    """
    by_length = sorted(rows, key=lambda row: (-len(row.input_ids), row.key))
    made = [by_length[begin : begin + size] for begin in range(0, len(by_length), size)]
    first, others = made[:1], made[1:]
    random.Random(0).shuffle(others)
    return first + others
