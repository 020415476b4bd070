"""A run of Weights & Biases, by its own library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_api.tracking import WandB
from llmtrain_trainer.tracking.identity import identity
from llmtrain_trainer.tracking.points import Point

_SECONDS_TO_OPEN = 60.0


class WandbRun:
    """The run of Weights & Biases with our run's UID for its id, in all attempts.

    The library keeps what it is told on disk and sends it by a process of its own, so that only
    the beginning and the end wait for the server.
    """

    def __init__(self, settings: WandB, run: RunFile, folder: Path) -> None:
        self._settings = settings
        self._run = run
        self._folder = folder
        self._wandb: Any = None
        self._first = 0

    def begin(self) -> None:
        """Opens the run, or goes on with it."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # To its makers.
        import wandb  # Late: it takes seconds, and reads the above.

        chosen: dict[str, Any] = {"console": "off", "silent": True, "disable_git": True}
        if self._settings.base_url is not None:
            chosen["base_url"] = self._settings.base_url
        self._wandb = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            id=identity(self._run),
            name=self._run.name,
            resume="allow",
            config=self._run.spec.to_dict(),
            dir=self._folder,
            settings=wandb.Settings(init_timeout=_SECONDS_TO_OPEN, **chosen),
        )
        self._first = self._wandb.step  # One more than the last of earlier attempts.

    def log(self, points: Sequence[Point]) -> None:
        """Hands over the points of steps that earlier attempts did not."""
        for point in points:
            if point.step >= self._first:
                self._wandb.log(dict(point.values), step=point.step)

    def end(self, exit_class: ExitClass) -> None:
        """Waits until the server has everything; a later attempt goes on all the same."""
        self._wandb.finish(exit_code=0 if exit_class is ExitClass.SUCCESS else 1)
