"""Carries checkpoints from this node's disk to storage, in the background and in order."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from llmtrain_api.errors import LLMTrainError
from llmtrain_api.layout import checkpoint_name
from llmtrain_api.runfile import spec_hash
from llmtrain_trainer import checkpoints, owner
from llmtrain_trainer.records import CheckpointManifest, Start, now
from llmtrain_trainer.stop import Stop
from llmtrain_trainer.storage import Folder
from llmtrain_trainer.workdir import CHECKPOINTS, Job, saved_marker

_POLL_SECONDS = 0.5
_RETRY_SECONDS = 20.0
_MANY = 3  # Checkpoints that wait on disk: storage is slower than training saves.


class Saver:
    """Uploads each checkpoint that all processes of this node have written."""

    def __init__(
        self,
        output: Folder,
        job: Job,
        start: Start,
        workdir: Path,
        *,
        say: Callable[[str], None],
        published: Callable[[CheckpointManifest], None],
    ) -> None:
        """Takes `published` to tell of each checkpoint that is whole in storage (node 0 only)."""
        self._output = output
        self._job = job
        self._start = start
        self._out = workdir / CHECKPOINTS
        self._say = say
        self._published = published
        self._parent = start.resume_from
        self._deadline: float | None = None  # For the parts of peers, once the end has come.
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
        self._thread.start()

    def drain(
        self, seconds: float, seconds_for_peers: float, stop: Stop, meanwhile: Callable[[], None]
    ) -> bool:
        """Uploads what is left, once the processes have ended; returns whether all of it was.

        Args:
            seconds: How long that may take; less when the order to stop leaves less.
            seconds_for_peers: How long the parts of other nodes are awaited.
            stop: The order to stop.
            meanwhile: Is done again and again.
        """
        deadline = time.monotonic() + seconds
        self._deadline = time.monotonic() + seconds_for_peers
        while self._thread.is_alive() and time.monotonic() < deadline and stop.seconds_left > 0:
            meanwhile()
            self._thread.join(0.1)
        return not self._thread.is_alive() and not self._waiting()

    def _waiting(self) -> list[Path]:
        workers = self._job.run.spec.workers
        first = self._job.node * workers.processes_per_node
        ranks = range(first, first + workers.processes_per_node)
        return checkpoints.local_checkpoints(self._out, ranks, saved_marker)

    def _run(self) -> None:
        while True:
            ending = self._deadline is not None  # Read before the look, so that none is missed.
            waiting = self._waiting()
            if len(waiting) > _MANY:
                self._say(f"{len(waiting)} checkpoints wait for storage")
            for folder in waiting:
                try:
                    self._save(folder)
                except LLMTrainError as error:
                    self._say(f"{folder.name} is not in storage yet: {error}")
                    if ending:
                        return
                    time.sleep(_RETRY_SECONDS)
                    break
            if ending:
                return
            time.sleep(_POLL_SECONDS)

    def _save(self, folder: Path) -> None:
        began = time.monotonic()
        step = int(folder.name.rpartition("-")[2])
        name = checkpoint_name(step, self._start.attempt, self._start.restart)
        checkpoints.upload_part(self._output, name, folder, self._job.node)
        if self._job.node == 0:
            self._publish(name, step)
            self._say(f"checkpoint {name} is in storage ({time.monotonic() - began:.1f} s)")
        shutil.rmtree(folder)

    def _publish(self, name: str, step: int) -> None:
        run = self._job.run
        parts = checkpoints.wait_for_parts(
            self._output, name, run.spec.workers.nodes, self._is_late
        )
        manifest = CheckpointManifest(
            name=name,
            parent=self._parent,
            attempt=self._start.attempt,
            restart=self._start.restart,
            step=step,
            samples=step * run.spec.training.global_batch_size,
            seed=run.spec.training.seed,
            world_size=run.spec.world_size,
            spec_hash=spec_hash(run.spec),
            created_at=now(),
            files=[file for part in parts for file in part.files],
        )
        checkpoints.publish(self._output, manifest)
        self._parent = name
        self._published(manifest)
        try:
            if owner.still_newest(self._output, self._start):
                checkpoints.prune(self._output, run.spec.checkpoint.keep)
        except LLMTrainError as error:
            self._say(f"old checkpoints stay until the next one is saved: {error}")

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline
