"""Carries checkpoints from this node's disk to storage, in the background and in order."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from llmtrain_api.layout import checkpoint_name
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import spec_hash
from llmtrain_trainer import checkpoints, owner
from llmtrain_trainer.best import best as best_of
from llmtrain_trainer.checkpoints import PartsMissingError
from llmtrain_trainer.faults import Faults
from llmtrain_trainer.records import CheckpointManifest, Start, now
from llmtrain_trainer.stop import Stop
from llmtrain_trainer.storage import Folder
from llmtrain_trainer.workdir import CHECKPOINTS, POSITION, Job, saved_marker

_POLL_SECONDS = 0.5
_RETRY_SECONDS = 20.0
_TRAINER_STATE = "trainer_state.json"  # transformers' name.
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
        first: Callable[[], None] = lambda: None,
        look: Callable[[bool], None] | None = None,
        best: str | None = None,
    ) -> None:
        """Args: whom to tell, and what to do.

        `first` is done before a checkpoint counts, and `published` is told of it after, both on
        node 0 only. `look` is done before each look for checkpoints, and told whether the processes
        have ended. `best` names the best checkpoint of earlier attempts.
        """
        self._output = output
        self._job = job
        self._start = start
        self._out = workdir / CHECKPOINTS
        self._say = say
        self._published = published
        self._first = first
        self._look = look
        self._parent = start.resume_from
        self._best = best
        self._saved_step = -1
        self._lost: set[Path] = set()  # Whose other parts will not come any more.
        self._faults = Faults()
        self._ending = threading.Event()
        self._given_up = False
        self._newest_first = False
        self._peers_until = float("inf")
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
        self._thread.start()

    def drain(
        self,
        seconds: float,
        seconds_for_peers: float,
        stop: Stop,
        meanwhile: Callable[[], None],
        *,
        newest_first: bool = False,
    ) -> bool:
        """Uploads what is left, once the processes have ended; returns whether all of it was.

        Args:
            seconds: How long that may take; after an order to stop what it leaves counts instead.
            seconds_for_peers: How long the parts of other nodes are awaited.
            stop: The order to stop.
            meanwhile: Is done again and again.
            newest_first: Older checkpoints wait, and node 0 leaves them out once a newer is saved.
        """
        deadline = time.monotonic() + seconds
        self._peers_until = time.monotonic() + seconds_for_peers
        self._newest_first = newest_first
        self._given_up = not _in_time(stop, deadline)
        self._ending.set()
        while self._thread.is_alive() and _in_time(stop, deadline):
            meanwhile()
            self._thread.join(0.1)
        self._given_up = True
        return not self._thread.is_alive() and not self._waiting()

    def _waiting(self) -> list[Path]:
        workers = self._job.run.spec.workers
        first = self._job.node * workers.processes_per_node
        ranks = range(first, first + workers.processes_per_node)
        return checkpoints.local_checkpoints(self._out, ranks, saved_marker)

    def _run(self) -> None:
        while not self._given_up:
            ending = self._ending.is_set()  # Read before the look, so that none is missed.
            pause = _POLL_SECONDS
            try:
                if self._look is not None:
                    self._look(ending)
                folder = self._next()
                if folder is not None:
                    self._save(folder)
                    self._faults.healed()
                    continue
                if ending:
                    return
            except Exception as error:  # Whatever it is: without this thread nothing is saved.
                if words := self._faults.words(error):
                    self._say(f"a checkpoint is not in storage yet: {words}")
                pause = _RETRY_SECONDS
            if ending:
                time.sleep(_POLL_SECONDS)
            else:
                self._ending.wait(pause)

    def _next(self) -> Path | None:
        """Returns the checkpoint whose turn it is."""
        waiting = [folder for folder in self._waiting() if folder not in self._lost]
        if len(waiting) > _MANY:
            self._say(f"{len(waiting)} checkpoints wait for storage")
        if not waiting:
            return None
        return waiting[-1 if self._newest_first else 0]

    def _save(self, folder: Path) -> None:
        began = time.monotonic()
        step = _step_of(folder)
        name = checkpoint_name(step, self._start.attempt, self._start.restart)
        if self._job.node == 0 and step < self._saved_step:
            self._say(f"checkpoint {name} is left out: a newer one is in storage")
            shutil.rmtree(folder)
            return
        checkpoints.upload_part(self._output, name, folder, self._job.node)
        if self._job.node == 0:
            try:
                self._publish(folder, name, step)
            except PartsMissingError:
                if self._is_late():
                    self._lost.add(folder)
                raise
            self._say(f"checkpoint {name} is in storage ({time.monotonic() - began:.1f} s)")
        shutil.rmtree(folder)

    def _publish(self, folder: Path, name: str, step: int) -> None:
        run, training = self._job.run, self._job.run.spec.training
        if _is_best(folder, step, run.spec):
            self._best = name
        parts = checkpoints.wait_for_parts(
            self._output,
            name,
            run.spec.workers.nodes,
            lambda: self._is_late() or self._is_superseded(step),
        )
        manifest = CheckpointManifest(
            name=name,
            parent=self._parent,
            attempt=self._start.attempt,
            restart=self._start.restart,
            step=step,
            samples=_samples(folder),
            seed=training.seed if training else None,
            world_size=run.spec.world_size,
            spec_hash=spec_hash(run.spec),
            created_at=now(),
            best=self._best,
            files=[file for part in parts for file in part.files],
        )
        self._first()
        checkpoints.publish(self._output, manifest)
        self._parent, self._saved_step = name, step
        self._published(manifest)
        try:
            if owner.still_newest(self._output, self._start):
                checkpoints.prune(self._output, run.spec.checkpoint.keep)
        except Exception as error:
            words = self._faults.words(error) or str(error)
            self._say(f"old checkpoints stay until the next one is saved: {words}")

    def _is_late(self) -> bool:
        return time.monotonic() > self._peers_until

    def _is_superseded(self, step: int) -> bool:
        """Returns whether a newer checkpoint waits, and time is short."""
        return self._newest_first and any(_step_of(folder) > step for folder in self._waiting())


def _samples(folder: Path) -> int | None:
    """Returns the rows trained until this checkpoint; none of one of an earlier version."""
    path = folder / POSITION
    return int(json.loads(path.read_bytes())["samples"]) if path.is_file() else None


def _is_best(folder: Path, step: int, spec: RunSpec) -> bool:
    """Returns whether no model was better than that of this checkpoint, by its own logs."""
    metric = spec.evaluation.metric_for_best_model if spec.evaluation is not None else None
    if metric is None:
        return False
    state = json.loads((folder / _TRAINER_STATE).read_bytes())
    found = best_of(state["log_history"], metric)
    return found is not None and found.step == step


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _in_time(stop: Stop, deadline: float) -> bool:
    return stop.seconds_left > 0 if stop.asked else time.monotonic() < deadline
