"""Small tools that every other module uses: run a command, tell the user, wait, lock."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_REMEDY = "run `make tools`, which installs or names what this machine lacks"


class DevclusterError(Exception):
    """Something that the user must know and can mend. The message says how."""


def say(text: str) -> None:
    """Prints a line at once, so that the steps show as they happen."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Prints the time that the body took, and `name`."""
    start = time.monotonic()
    yield
    say(f"  {time.monotonic() - start:6.1f} s  {name}")


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Runs a command and returns its output.

    Raises:
        DevclusterError: The command failed, and the message holds the end of its output; or
            there is no such command.
    """
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=env,
            cwd=cwd,
            text=True,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise DevclusterError(f"`{error.filename}` is missing: {_REMEDY}") from error
    if done.returncode != 0:
        told = (done.stderr or done.stdout).strip()[-2000:]
        raise DevclusterError(f"`{' '.join(map(str, argv))}` exited {done.returncode}: {told}")
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Runs a command silently and returns whether it succeeded."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


def wait_until(ready: Callable[[], bool], *, seconds: float) -> bool:
    """Asks `ready` until it says yes; returns False once `seconds` have passed."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`. The kernel frees it when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another devcluster command, which holds `{path}`")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Writes a file whole or not at all. Private by default: most hold keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
