"""Which rows of an epoch each process gets: each row once, in an order that no topology changes.

A round is one forward pass of all processes. Of the next `processes x micro` rows the first process
takes the first `micro`, the second the next, as accelerate deals them, so that an optimizer step
has the same rows however many processes share them. The last round deals what is left: a process
may get fewer rows than the others, or none, which is an empty batch. accelerate would fill it up
from the epoch's beginning, so that some rows were trained twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
import torch
from torch.utils.data import BatchSampler, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.stages.samples import TOKEN_COLUMNS

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Deal:
    """How the rows of an epoch are dealt out."""

    rows: int
    """Rows of an epoch."""

    micro: int
    """Rows per process and round."""

    processes: int

    @property
    def rounds(self) -> int:
        """Forward passes of each process in an epoch."""
        return -(-self.rows // (self.micro * self.processes))

    def shares(self, number: int) -> list[int]:
        """Returns how many rows each process gets in round `number`, which counts from 0."""
        left = self.rows - number * self.micro * self.processes
        return [
            min(max(left - process * self.micro, 0), self.micro)
            for process in range(self.processes)
        ]

    def rows_of(self, first: int, count: int) -> int:
        """Returns how many rows all processes get in `count` rounds from round `first` on."""
        unit = self.micro * self.processes
        return min((first + count) * unit, self.rows) - first * unit

    def rows_done(self, steps: int, accumulation: int) -> int:
        """Returns how many rows have been trained after `steps` of `accumulation` rounds each."""
        batch = self.micro * self.processes * accumulation
        epochs, within = divmod(steps, -(-self.rows // batch))
        return epochs * self.rows + within * batch


class MicroBatches(Sampler[list[int]]):
    """All micro-batches of an epoch; accelerate gives them to the processes in turn.

    There are as many for each process, the last of them short or empty.

    Args:
        sampler: The order of the rows; accelerate puts its seedable sampler in place of a random
            one.
        deal: How they are dealt out.
    """

    batch_size = None  # By which accelerate knows batches of different sizes, and fills none up.
    drop_last = False

    def __init__(self, sampler: Sampler[int], deal: Deal) -> None:
        self.sampler = sampler
        self._deal = deal

    def __iter__(self) -> Iterator[list[int]]:
        given = 0
        for batch in BatchSampler(self.sampler, self._deal.micro, drop_last=False):
            given += 1
            yield batch
        yield from ([] for _ in range(len(self) - given))

    def __len__(self) -> int:
        return self._deal.rounds * self._deal.processes


class LengthGroups(Sampler[int]):
    """Rows of about the same length one after the other, for less padding.

    Shuffled, cut into mega-batches of up to 50 global batches, and sorted in each: a function of
    the seed and the epoch that knows nothing of processes.

    Args:
        lengths: Tokens of each row.
        global_batch: Rows of an optimizer step.
        seed: With the epoch, what the order follows from.
    """

    def __init__(self, lengths: Sequence[int], global_batch: int, seed: int) -> None:
        self._lengths = lengths
        self._global_batch = global_batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order: list[int] = get_length_grouped_indices(  # type: ignore[no-untyped-call]
            self._lengths, self._global_batch, generator=generator
        )
        return iter(order)

    def __len__(self) -> int:
        return len(self._lengths)


class Filled:
    """A collator that makes a batch of no rows too, for a process that has none left.

    All processes must take part in a step. The batch is made of `row`, with no token trained; what
    makes its loss in another way than by labels is weighed with 0 by whoever asked for it.

    Args:
        collator: The collator that makes batches.
        row: Any row.
    """

    def __init__(self, collator: Any, row: Mapping[str, Any]) -> None:
        self._collator = collator
        self._row = row

    def __call__(self, features: list[Mapping[str, Any]]) -> Any:
        """Returns the batch of `features`."""
        if features:
            return self._collator(features)
        batch = self._collator([self._row])
        for name in {"labels", "shift_labels"} & batch.keys():
            batch[name] = torch.full_like(batch[name], IGNORED)
        return batch


def lengths(rows: datasets.Dataset) -> list[int]:
    """Returns the tokens of each row, in all of its columns."""
    columns = [name for name in TOKEN_COLUMNS if name in rows.column_names]
    found: list[int] = []
    for table in rows.select_columns(columns).with_format("arrow").iter(_ROWS_AT_ONCE):
        counts = [pyarrow.compute.list_value_length(table[name]) for name in columns]
        found += np.sum([count.to_numpy() for count in counts], axis=0).tolist()
    return found
