"""Beside a trainer: each row is trained once an epoch and counts as much as any other.

The rule for the end of an epoch: its last optimizer step trains the rows that are left, however
few, and divides by their number. Shuffling begins anew with the next epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
import transformers
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers.trainer_utils import seed_worker

from llmtrain_trainer import workdir
from llmtrain_trainer.stages.deal import Deal, LengthGroups, MicroBatches, lengths

if TYPE_CHECKING:
    _Base = transformers.Trainer
else:
    _Base = object


class EachRowOnce(_Base):
    """Stands before a trainer of transformers or TRL in a class's bases."""

    _length_groups: LengthGroups | None = None
    _round = 0  # The next one to train, in this epoch.
    _rows_of_step = 0
    _total_train_tokens: Any = 0  # TRL's name; an int, or a tensor on the device.

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> Any:
        """Returns transformers' loader, over micro-batches of which none is filled up."""
        args = self.args
        if isinstance(dataset, datasets.Dataset):
            dataset = self._remove_unused_columns(dataset, description=description)
        sampler = sampler_fn(dataset) if sampler_fn is not None else None
        deal = Deal(len(dataset), batch_size, args.world_size)
        worker_init = partial(
            seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index
        )
        loader: Any = DataLoader(
            dataset,
            batch_sampler=MicroBatches(sampler or SequentialSampler(dataset), deal),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers and is_training,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
            worker_init_fn=worker_init if is_training else None,
        )
        return self.accelerator.prepare(loader)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Returns the order of the rows: transformers', unless they are grouped by length."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows = train_dataset if train_dataset is not None else self.train_dataset
        args = self.args
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.data_seed if args.data_seed is not None else args.seed
        self._length_groups = LengthGroups(lengths(rows), batch, seed)
        return self._length_groups

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        """Returns held-out rows in the order in which they stand."""
        return SequentialSampler(eval_dataset)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        """Goes on counting tokens where the checkpoint was saved."""
        found = super()._init_training_state(*args, **kwargs)
        self._total_train_tokens = self.state.num_input_tokens_seen
        return found

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Saves how many tokens and rows have been trained so far as well."""
        self.state.num_input_tokens_seen = int(self._total_train_tokens)
        super()._save_checkpoint(*args, **kwargs)
        if self.is_world_process_zero():
            step = self.state.global_step
            done = self._deal.rows_done(step, self.args.gradient_accumulation_steps)
            path = Path(str(self.args.output_dir), f"checkpoint-{step}", workdir.POSITION)
            path.write_text(json.dumps({"samples": done}), encoding="utf-8")

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trains an epoch, or what a checkpoint left of it."""
        resumed = kwargs["resume_from_checkpoint"] is not None
        goes_on = resumed and kwargs["epoch"] == kwargs["epochs_trained"]
        self._round = kwargs["steps_trained_in_current_epoch"] if goes_on else 0
        if self._length_groups is not None:
            self._length_groups.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    @property
    def _deal(self) -> Deal:
        rows: Any = self.train_dataset
        return Deal(len(rows), self.args.train_batch_size, self.args.world_size)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Returns the batches of a step; how many rows it has in all is kept."""
        batches, tokens = super().get_batch_samples(*args, **kwargs)
        self._rows_of_step = self._deal.rows_of(self._round, len(batches))
        return batches, tokens

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Trains a micro-batch; a mean over its rows is weighed by their number.

        transformers divides such a mean by this process's micro-batches of the step, which is right
        where all are full, and then this is the same number. It divides nothing where the loss is a
        sum over tokens.
        """
        shares = self._deal.shares(self._round)
        self._round += 1
        own = shares[self.args.process_index]
        parts = self._rows_of_step / (own * len(shares)) if own else math.inf
        self.current_gradient_accumulation_steps: Any = parts
        with gathering(self.accelerator, shares, own):
            return super().training_step(*args, **kwargs)


@contextmanager
def gathering(accelerator: Any, shares: Sequence[int], own: int) -> Iterator[None]:
    """Lets trainers gather over processes with different numbers of rows; of none comes nothing.

    Args:
        accelerator: Whose ways to gather are replaced meanwhile.
        shares: Rows of each process.
        own: Rows of this one.
    """
    if len(set(shares)) == 1:
        yield
        return
    plain = accelerator.gather

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0:
            here = torch.tensor([share > 0 for share in shares], device=tensor.device)
            found: torch.Tensor = plain(tensor)[here]
            return found
        per_row = len(tensor) // max(own, 1)
        most = max(shares) * per_row
        padded = tensor.new_zeros(most, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = plain(padded).split(most)
        return torch.cat(
            [part[: share * per_row] for part, share in zip(parts, shares, strict=True)]
        )

    accelerator.gather = accelerator.gather_for_metrics = gather
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics
