"""What the launcher and its processes print: to standard output, and to storage in pieces.

Every line also goes to a file on scratch, from which a thread uploads numbered segments; an outage
of storage loses nothing and blocks nobody.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from llmtrain_trainer.faults import Faults
from llmtrain_trainer.lines import Tail
from llmtrain_trainer.storage import Folder

UPLOAD_SECONDS = 8.0
"""How often new lines go to storage: within the 10 s that users are told."""
_LAST_LINES = 50


class Logs:
    """One node's log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "node.log"
        self._file = self._path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The file with all lines so far."""
        return self._path

    def say(self, message: str) -> None:
        """Prints a line of the launcher's own, in the form of the training processes' lines."""
        time = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S,%f}"[:-3]
        self.emit(f"{time} INFO launcher: {message}")

    def emit(self, line: str, *, quiet: bool = False) -> None:
        """Prints a line and keeps it for storage; `quiet` keeps it only."""
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()
            if not quiet:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()

    def close(self) -> None:
        """Keeps no more lines for storage; they are still printed."""
        with self._lock:
            self._file.close()


class ProcessOutput:
    """Follows the files that the training processes of this node print into."""

    def __init__(
        self, logs: Logs, files: Callable[[], Mapping[int, Sequence[Path]]], agent: Path
    ) -> None:
        """Takes `files`, which finds them by global rank, and the file of what spawned them."""
        self._logs = logs
        self._files = files
        self._tails: dict[Path, Tail] = {}
        self._agent = Tail(agent)
        self._last: dict[int, deque[str]] = {}
        self._last_of_agent: deque[str] = deque(maxlen=_LAST_LINES)

    def follow(self, *, to_the_end: bool = False) -> None:
        """Passes on what has been printed since the last call."""
        for rank, paths in self._files().items():
            last = self._last.setdefault(rank, deque(maxlen=_LAST_LINES))
            for path in paths:
                tail = self._tails.setdefault(path, Tail(path))
                for line in tail.read(to_the_end=to_the_end):
                    last.append(line)
                    self._logs.emit(line if rank == 0 else f"[rank {rank}] {line}")
        for line in self._agent.read(to_the_end=to_the_end):
            self._last_of_agent.append(line)
            self._logs.emit(f"[torchrun] {line}", quiet=True)

    def last_lines(self, rank: int | None) -> list[str]:
        """Returns the last lines of a rank, or of the spawning process where it printed none."""
        lines = self._last.get(rank, deque()) if rank is not None else deque()
        return [line for line in (lines or self._last_of_agent) if line.strip()]


class Upload(Protocol):
    """A growing file on its way to storage."""

    def upload(self, output: Folder, *, to_the_end: bool = False) -> None:
        """Uploads what is new; raises where storage does not take it."""


class Shipper:
    """Uploads growing files from a thread of its own until it is closed."""

    def __init__(self, say: Callable[[str], None], every: float = UPLOAD_SECONDS) -> None:
        self._say = say
        self._every = every
        self._uploads: list[tuple[Folder, Upload]] = []
        self._failing = False
        self._faults = Faults()
        self._closing = threading.Event()
        self._shipping = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log-shipper", daemon=True)
        self._thread.start()

    def add(self, output: Folder, upload: Upload) -> None:
        """Ships one more file from now on."""
        self._uploads.append((output, upload))

    def ship(self) -> None:
        """Ships whole lines now, and returns when that is done or has failed."""
        self._ship(to_the_end=False)

    def flush(self) -> None:
        """Ships what is there now, and returns when that is done or has failed."""
        self._ship(to_the_end=True)

    def close(self, timeout: float) -> bool:
        """Ships what is left; returns whether all of it was within `timeout` seconds."""
        self._closing.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._failing

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self._ship(to_the_end=False)
        self._ship(to_the_end=True)

    def _ship(self, *, to_the_end: bool) -> None:
        failing = False
        with self._shipping:
            for output, upload in list(self._uploads):
                try:
                    upload.upload(output, to_the_end=to_the_end)
                except Exception as error:  # Whatever it is: the next call tries again.
                    if words := self._faults.words(error):
                        self._say(f"logs wait on this node until storage takes them: {words}")
                    failing = True
            if not failing:
                self._faults.healed()
            self._failing = failing
