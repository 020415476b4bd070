"""How a stage without a Trainer says how far it is."""

from __future__ import annotations

import json
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from llmtrain_trainer import workdir
from llmtrain_trainer.workdir import ActivityName, say

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_WORDS = 1.0


class Telling:
    """Speaks about once a second.

    Args:
        folder: The working folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.begin()

    def begin(self) -> None:
        """Notes that something new begins: the time counts from here."""
        self._begin = self._last = time.monotonic()

    def due(self) -> bool:
        """Returns whether it is time for a word."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_WORDS:
            return False
        self._last = now
        return True

    def say(self, activity: ActivityName, message: str) -> None:
        """Tells it to the log and to the launcher."""
        logger.info("%s: %s", activity.lower(), message)
        say(self._folder, activity, message)

    def log(self, done: int, total: int, **numbers: float) -> None:
        """Writes a line of the training log, with `numbers` beside how far it is."""
        line = log_line(done, total, time.monotonic() - self._begin) | numbers
        with (self._folder / workdir.TRAINER_LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def log_line(done: int, total: int, seconds: float) -> dict[str, Any]:
    """Returns a line of the training log, in the names of those of the other stages."""
    pace = seconds / done
    return {
        "current_steps": done,
        "total_steps": total,
        "percentage": round(100 * done / total, 2),
        "elapsed_time": str(timedelta(seconds=round(seconds))),
        "remaining_time": str(timedelta(seconds=round(pace * (total - done)))),
        "seconds_per_step": pace,
    }
