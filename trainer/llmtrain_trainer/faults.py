"""What goes wrong in a thread that must go on whatever happens: the words for it."""

from __future__ import annotations

import traceback

from llmtrain_api.errors import LLMTrainError


class Faults:
    """Tells faults once while they stay the same; one that nobody foresaw with its traceback."""

    def __init__(self) -> None:
        self._last = ""
        self._traced: set[str] = set()

    def words(self, error: Exception) -> str | None:
        """Returns what to say of `error`, or nothing where it was said just before."""
        words = f"{type(error).__name__}: {error}"
        known, self._last = words == self._last, words
        if known:
            return None
        if isinstance(error, LLMTrainError):
            return str(error)
        if words in self._traced:
            return words
        self._traced.add(words)
        return "".join(traceback.format_exception(error)).rstrip()

    def healed(self) -> None:
        """Notes that all is well again, so that the next fault is told even if it is the same."""
        self._last = ""
