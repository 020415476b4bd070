"""TensorBoard's event files, in storage while the run trains.

S3 has no append: the newest file is written again as it grows, and at a size it gives way to a new
one, so that a long run does not send all of its past each time. TensorBoard reads the files of a
folder one after the other, in the order of their names. An attempt begins with the word that makes
it forget what an earlier one said of the steps that are trained again, so each step stands once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from llmtrain_api.layout import tensorboard_file
from llmtrain_trainer.lines import Tail
from llmtrain_trainer.records import Start
from llmtrain_trainer.storage import Folder
from llmtrain_trainer.tracking.points import read_points

_MOST_BYTES = 1024 * 1024  # Of one file.


class EventFiles:
    """Carries the training log of one attempt to storage as event files.

    Args:
        log: The training log.
        start: The attempt, and the checkpoint that it goes on from.
        clock: Seconds since 1970.
        most_bytes: From which size on a file gives way to a new one.
    """

    def __init__(
        self,
        log: Path,
        start: Start,
        *,
        clock: Callable[[], float] = time.time,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._tail = Tail(log)
        self._start = start
        self._clock = clock
        self._most_bytes = most_bytes
        self._number = 0
        self._content = b""  # Of the newest file.
        self._waiting = False

    def upload(self, output: Folder, *, to_the_end: bool = False) -> None:
        """Uploads what is new.

        Raises:
            LLMTrainError: Storage does not take it; what is left goes with the next call.
        """
        points = read_points(self._tail.read(to_the_end=to_the_end), self._clock())
        if points:
            from llmtrain_trainer.tracking import events  # Late: it says why.

            if not self._content:
                forget_from = first_step(self._start) if self._number == 0 else None
                self._content = events.head(self._clock(), forget_from)
            self._content += events.body(points)
            self._waiting = True
        if not self._waiting:
            return
        key = tensorboard_file(self._start.attempt, self._start.restart, self._number)
        output.write(key, self._content)
        self._waiting = False
        if len(self._content) >= self._most_bytes:
            self._content = b""
            self._number += 1


def first_step(start: Start) -> int:
    """Returns the first step that an attempt trains."""
    if start.resume_from is None:
        return 0
    return int(start.resume_from.partition("-")[0]) + 1
