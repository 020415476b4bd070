"""A bigram model: the chance of a token given the one before it, counted and smoothed.

What a neural model must beat to have learned more than which token follows which. Imports nothing
of llmtrain, and numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Windows = Sequence[Sequence[int]]
"""Stretches of token ids; each token but the first of a window is predicted from those before."""

CANDIDATES = [10.0**exponent for exponent in (-3, -2.5, -2, -1.5, -1, -0.5, 0)]
"""The values of k that are tried."""
TUNING_SHARE = 10  # One window in so many of the training text chooses k.


class Bigram:
    """Counts of pairs of tokens, with `k` added to each ("add-k smoothing").

    p(b | a) = (count(a, b) + k) / (count(a) + k * vocabulary)
    """

    def __init__(self, windows: Windows, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        pairs = self._pairs(windows)
        self._known, self._counts = np.unique(pairs, return_counts=True)
        self._contexts = np.bincount(pairs // vocabulary, minlength=vocabulary)

    def _pairs(self, windows: Windows) -> NDArray[np.int64]:
        """Returns each pair of neighbours as one number."""
        tokens = [np.asarray(window, dtype=np.int64) for window in windows]
        return np.concatenate([each[:-1] * self.vocabulary + each[1:] for each in tokens])

    def loss(self, windows: Windows, k: float) -> float:
        """Returns the mean loss over all predicted tokens, in nats."""
        pairs = self._pairs(windows)
        places = np.minimum(np.searchsorted(self._known, pairs), len(self._known) - 1)
        counts = np.where(self._known[places] == pairs, self._counts[places], 0)
        contexts = self._contexts[pairs // self.vocabulary]
        chances = (counts + k) / (contexts + k * self.vocabulary)
        return float(-np.log(chances).mean())


def choose_k(windows: Windows, vocabulary: int) -> float:
    """Returns the best of `CANDIDATES` for one tenth of the windows, with the others counted."""
    tuning = windows[::TUNING_SHARE]
    counted = [window for number, window in enumerate(windows) if number % TUNING_SHARE]
    model = Bigram(counted, vocabulary)
    return min(CANDIDATES, key=lambda k: model.loss(tuning, k))


def held_out_loss(train: Windows, held_out: Windows, vocabulary: int) -> tuple[float, float]:
    """Returns the loss on `held_out` in nats per token, and the k that `train` alone chose."""
    k = choose_k(train, vocabulary)
    return Bigram(train, vocabulary).loss(held_out, k), k
