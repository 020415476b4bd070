"""`stage: Custom` on a node: the folders of the command, its checkpoints, its results.

The command knows nothing of llmtrain. It reads LLMTRAIN_DATA_DIR and writes LLMTRAIN_OUTPUT_DIR, as
a Trainer does: `checkpoint-<step>` folders in it are checkpoints, all else is the result.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llmtrain_api.errors import ConfigError
from llmtrain_api.layout import ALL_RESULTS, MANIFEST, MODEL
from llmtrain_api.run import RunSpec
from llmtrain_trainer.workdir import (
    CHECKPOINTS,
    DONE,
    Job,
    data_folder,
    output_folder,
    saved_marker,
)

QUIET_SECONDS = 5.0
"""A checkpoint is whole when nothing in it has changed for so long: other processes of the node may
write their part a little later than the one that says it is done."""
COMPLETE = ".complete"
"""The file that a script writes last of all into a checkpoint, where no Trainer does."""
_TRAINER_STATE = "trainer_state.json"  # What the Trainer writes last.
_CHECKPOINT = re.compile(r"checkpoint-\d+")

_Fingerprint = frozenset[tuple[str, int, int]]


def check(spec: RunSpec) -> None:
    """Checks that the image can start the command as the spec says.

    Raises:
        ConfigError: torchrun is wanted, and there is no torch beside the launcher.
    """
    if spec.custom is None or spec.custom.launcher == "None":
        return
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "custom.launcher",
            "Torchrun needs torch in the Python environment that llmtrain is installed in",
            "build the image from the trainer image, install llmtrain beside torch, or use None"
            " and start torchrun in custom.command",
        )


def lay_out(job: Job, workdir: Path) -> None:
    """Makes the folders of the command, with its data and the checkpoint that it goes on from.

    They lie where they lay in the attempt before, since the state of a Trainer holds paths.

    Raises:
        ConfigError: Two inputs would lie in one place.
    """
    data, output = data_folder(workdir), output_folder(workdir)
    for folder in (data, output):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for file in job.dataset_files:
        target = data / place_of(file.uri, [each.uri for each in job.run.spec.datasets])
        if target.exists():
            raise ConfigError(
                "datasets",
                f"{file.uri} and another input would both be $(LLMTRAIN_DATA_DIR)/{target.name}",
                "give one of them another name in storage",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.path)
    if job.resume_from is not None:
        source = Path(job.resume_from)
        _link_all(source, output / source.name)


def place_of(uri: str, datasets: list[str]) -> str:
    """Returns where an object lies in the data folder: by its name, or its path in a folder."""
    named = next(each for each in datasets if uri == each or _is_in(uri, each))
    return uri.removeprefix(named.rstrip("/").rpartition("/")[0] + "/")


def _is_in(uri: str, folder: str) -> bool:
    return folder.endswith("/") and uri.startswith(folder)


class Checkpoints:
    """Takes what the command has saved into the folder from which checkpoints are uploaded.

    Links, no copies: the command may delete its own at any time, and disk is scarce.
    """

    def __init__(self, job: Job, workdir: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._output = output_folder(workdir)
        self._taken_to = workdir / CHECKPOINTS
        self._node = job.node
        processes = job.run.spec.workers.processes_per_node
        self._ranks = range(job.node * processes, (job.node + 1) * processes)
        self._now = now
        self._known = {Path(job.resume_from).name} if job.resume_from else set()
        self._seen: dict[str, tuple[_Fingerprint, float]] = {}

    def take(self, ended: bool) -> None:
        """Takes the checkpoints that are whole; once the command has `ended` none will change."""
        for folder in self._output.iterdir():
            if folder.name in self._known or not _CHECKPOINT.fullmatch(folder.name):
                continue
            if not folder.is_dir():
                continue
            try:
                if self._is_whole(folder, ended):
                    self._take(folder)
            except FileNotFoundError:  # The command has just deleted it.
                continue

    def _is_whole(self, folder: Path, ended: bool) -> bool:
        # The other nodes write what is theirs of a checkpoint; node 0 knows when it is all.
        if self._node == 0 and not _says_it_is_done(folder):
            return False
        if ended:
            return True
        state, now = _fingerprint(folder), self._now()
        before, since = self._seen.get(folder.name, (None, now))
        if state != before:
            since = now
        self._seen[folder.name] = (state, since)
        return now - since >= QUIET_SECONDS

    def _take(self, folder: Path) -> None:
        draft = self._taken_to / f".{folder.name}"
        shutil.rmtree(draft, ignore_errors=True)
        _link_all(folder, draft)
        for rank in self._ranks:
            (draft / saved_marker(rank)).touch()
        draft.rename(self._taken_to / folder.name)
        self._known.add(folder.name)


def _says_it_is_done(folder: Path) -> bool:
    if (folder / COMPLETE).exists():
        return True
    try:
        json.loads((folder / _TRAINER_STATE).read_bytes())
    except (FileNotFoundError, ValueError):  # Not there yet, or not to its end.
        return False
    return True


def _fingerprint(folder: Path) -> _Fingerprint:
    stats = [(path, path.stat()) for path in _files(folder)]
    return frozenset((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def gather(workdir: Path, final: Path, say: Callable[[str], None]) -> None:
    """Puts what the command left in its output folder, but for checkpoints, into the results.

    Raises:
        ConfigError: It left nothing.
    """
    output = output_folder(workdir)
    found = False
    for path in _files(output):
        relative = path.relative_to(output)
        if _CHECKPOINT.fullmatch(relative.parts[0]):
            continue
        if relative == Path(MANIFEST):
            say(f"{MANIFEST} of the command is left out: the name is llmtrain's own there")
            continue
        _link(path, final / MODEL / relative)
        found = True
    if not found:
        raise ConfigError(
            "custom.command",
            "it ended well, but left nothing in the folder LLMTRAIN_OUTPUT_DIR",
            "have it write its results there",
        )
    metrics = output / Path(ALL_RESULTS).name
    if metrics.is_file():  # By `trainer.save_metrics`.
        (final / ALL_RESULTS).parent.mkdir()
        shutil.copyfile(metrics, final / ALL_RESULTS)  # Something may be added to it.
    (final / DONE).touch()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _link_all(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in _files(source):
        _link(path, target / path.relative_to(source))


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name; copies it where it lies on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    try:
        os.link(real, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(real, target)
