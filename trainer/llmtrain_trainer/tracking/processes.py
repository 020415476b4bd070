"""The trackers' processes as node 0's launcher sees them: started, told of the end, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from llmtrain_api.exits import ExitClass
from llmtrain_api.tracking import CREDENTIALS, Tracking
from llmtrain_trainer.torchrun import descendants
from llmtrain_trainer.tracking.delivery import END, Delivered, state_file
from llmtrain_trainer.workdir import write_atomically

MODULE = "llmtrain_trainer.tracking"
PATIENCE = 30.0
"""Seconds that a service has, after training, to take what is left."""
_POLL_SECONDS = 0.1
_SECONDS_TO_DIE = 5.0  # After SIGKILL.
_SECONDS_FOR_LAST_WORDS = 1.0  # A child that has outlived its parent may hold the pipe open.


def services(tracking: Tracking | None) -> list[str]:
    """Returns the names of the services that a run tells."""
    if tracking is None:
        return []
    return [name for name in ("mlflow", "wandb") if getattr(tracking, name) is not None]


def environment(given: Mapping[str, str], service: str) -> dict[str, str]:
    """Returns the environment of a service's process: no account but the service's own."""
    others = [key for key in CREDENTIALS if not key.startswith(service.upper())]
    return {
        name: value
        for name, value in given.items()
        if not name.startswith("AWS_") and name not in others
    }


class Trackers:
    """The processes; to be used in a `with`, after which none of them is left.

    Args:
        names: The services.
        workdir: The working folder, with `job.json` in it.
        say: Prints a line for people.
    """

    def __init__(self, names: list[str], workdir: Path, say: Callable[[str], None]) -> None:
        self._workdir = workdir
        self._say = say
        self._threads: list[threading.Thread] = []
        self._processes = {name: self._start(name) for name in names}

    def _start(self, service: str) -> subprocess.Popen[str]:
        with (self._workdir / f"tracking-{service}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, service, str(self._workdir)],
                env=environment(os.environ, service),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the launcher.
            )
        thread = threading.Thread(target=self._pass_on, args=(process,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return process

    def _pass_on(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._say(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kills what is left."""
        for process in self._processes.values():
            if process.poll() is not None:
                continue
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(_SECONDS_TO_DIE)
        for thread in self._threads:
            thread.join(_SECONDS_FOR_LAST_WORDS)

    def end(self, exit_class: ExitClass) -> None:
        """Tells the processes how training ended; returns at once."""
        if self._processes:
            write_atomically(self._workdir / END, exit_class.value)

    def wait(self, seconds: float, meanwhile: Callable[[], None]) -> list[str]:
        """Waits for the services to take what is left; returns a warning for each that did not.

        Args:
            seconds: How long at most.
            meanwhile: Is called again and again.
        """
        until = time.monotonic() + seconds
        left = set(self._processes)
        while left and time.monotonic() < until:
            left = {name for name in left if self._processes[name].poll() is None}
            meanwhile()
            time.sleep(_POLL_SECONDS)
        return [words for name in self._processes if (words := self._warning(name, seconds))]

    def _warning(self, service: str, seconds: float) -> str:
        """Returns what a service lacks, in words, or nothing."""
        file = self._workdir / state_file(service)
        state = Delivered(whole=False)
        if file.exists():
            state = Delivered.model_validate_json(file.read_bytes())
        if state.whole:
            return ""
        why = state.trouble or self._last_line(service) or f"it took more than {seconds:.0f} s"
        return (
            f"{service} was not told of all of this run ({why}); results/trainer_log.jsonl and"
            " tensorboard/ have everything"
        )

    def _last_line(self, service: str) -> str:
        """Returns the last line that a process printed before it ended by itself."""
        if self._processes[service].poll() is None:
            return ""
        text = (self._workdir / f"tracking-{service}.log").read_text("utf-8", errors="replace")
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
