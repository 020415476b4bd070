"""Which samples each process was given: the proof that no two processes train the same ones."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

TOKEN_COLUMNS = ("input_ids", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")
"""The columns of token ids that the rows of the stages have."""

_MOST_REMEMBERED = 100_000  # Per process; bounds what is exchanged at the end.


class SampleRecorder(TrainerCallback):
    """Stands in for the data collator and remembers a digest of each sample of one epoch.

    Args:
        collator: The collator that makes batches.
    """

    def __init__(self, collator: Any) -> None:
        self._collator = collator
        self._recording = False
        self.digests: list[int] = []

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """Returns the batch of `features`, as the collator makes it."""
        if self._recording and len(self.digests) < _MOST_REMEMBERED:
            self.digests += [_digest(feature) for feature in features]
        return self._collator(features)

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Begins with the first epoch of this attempt."""
        self._recording = not self.digests

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Ends with it."""
        self._recording = False


def report(digests_by_rank: Sequence[Sequence[int]]) -> None:
    """Logs how many samples each process was given, and how many two of them have in common."""
    seen: set[int] = set()
    common = 0
    for rank, digests in enumerate(digests_by_rank):
        own = set(digests)
        common += len(own & seen)
        seen |= own
        whole = hashlib.sha256(array("Q", sorted(own)).tobytes()).hexdigest()[:16]
        logger.info(
            "rank %d was given %d samples in its first epoch, %s", rank, len(digests), whole
        )
    logger.info("%d distinct samples, %d of them seen by two processes", len(seen), common)


def _digest(feature: Mapping[str, Any]) -> int:
    """Returns a digest of a row's tokens, in whichever columns they stand."""
    ids = array("i")
    for name in TOKEN_COLUMNS:
        ids.extend(feature.get(name, ()))
    digest = hashlib.blake2b(ids.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
