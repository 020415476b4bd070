"""The sequences of an epoch where the sources of running text have weights.

Each source is cut into sequences by itself, so that a sequence belongs to one source and shares of
sequences are shares of tokens. Which sequence stands where is counted, not listed: a corpus of any
size takes no memory for it.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtrain_trainer.data.stream import Sequences, Stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def parts(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Returns where the tokens of each source lie in a stream, given how many each has."""
    return list(itertools.pairwise([0, *itertools.accumulate(sizes)]))


def taken(index: int, size: int, count: int, seed: int) -> int:
    """Returns which of a source's sequences is its `index`th one in an epoch.

    Whole passes come first; the rest is spread evenly over the source, from a place that the seed
    says, so that none of it stands twice.

    Args:
        index: From 0 to `count`, which is left out.
        size: Sequences of the source.
        count: How many an epoch takes of it.
        seed: The seed of the run.
    """
    whole, rest = divmod(count, size)
    if index < whole * size:
        return index % size
    begin = int.from_bytes(hashlib.sha256(f"{seed} {size}".encode()).digest()[:8], "big")
    return (begin + (index - whole * size) * size // rest) % size


class Mixed:
    """The sequences of an epoch, by their index: as many of each source as its weight says.

    Args:
        sources: The sequences of each source.
        counts: How many of each an epoch has.
        seed: Decides which, where that is no whole number of passes.
    """

    def __init__(self, sources: Sequence[Sequences], counts: Sequence[int], seed: int) -> None:
        self._sources = sources
        self._counts = counts
        self._seed = seed
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        """Returns one sequence, as `Sequences` does."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        within = index - (self._ends[number] - self._counts[number])
        source = self._sources[number]
        return source[taken(within, len(source), self._counts[number], self._seed)]


def mix(
    stream: Stream,
    length: int,
    *,
    isolate: bool,
    sizes: Sequence[int],
    counts: Sequence[int],
    seed: int,
) -> Mixed:
    """Returns the sequences of an epoch out of a stream of several sources.

    Args:
        stream: The sources, one after the other.
        length: Tokens per sequence.
        isolate: See `Sequences`.
        sizes: Tokens of each source.
        counts: Sequences of each source in an epoch.
        seed: Decides which, where that is no whole number of passes.
    """
    sources = [Sequences(stream, length, isolate=isolate, part=part) for part in parts(sizes)]
    return Mixed(sources, counts, seed)
