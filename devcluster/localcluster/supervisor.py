"""Starts processes that outlive this command, records them, and ends only those.

A record holds the process id together with the process's start time and the machine's boot id,
so that an id that the kernel has given to another process since is never signalled.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.settings import LOGS, RUN, STATE
from localcluster.shell import DevclusterError, say, step, wait_until, write

RECORDS = RUN / "processes"
_CHILDREN: list[subprocess.Popen[bytes]] = []
"""Kept, because Python warns of a running child that is forgotten."""


@dataclass(frozen=True)
class Process:
    """A program to keep running."""

    name: str
    argv: list[str]
    healthy: Callable[[], bool]
    """Whether it answers. Asked again and again, so it must be quick."""

    files: tuple[Path, ...] = ()
    """Configuration files: when one changes, the process is started anew."""

    env: dict[str, str] = field(default_factory=dict)
    cgroup: Path | None = None
    """The `cgroup.procs` folder to start in: all that it spawns can then be found."""

    patience: float = 60
    """Seconds until a start counts as failed."""

    def fingerprint(self) -> str:
        """Returns a digest of all that a restart would change."""
        known = [self.argv, sorted(self.env.items()), [file.read_text() for file in self.files]]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def boot_id() -> str:
    """Returns an id that changes when the machine starts anew."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[str, int] | None:
    """Returns state letter and start time (clock ticks since boot) of a process, if it exists."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in brackets, may hold blanks and brackets itself.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _record(name: str) -> dict[str, str | int] | None:
    try:
        known: dict[str, str | int] = json.loads((RECORDS / f"{name}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return known


def pid_of(name: str) -> int | None:
    """Returns the id of the recorded process if it still is the one that was started."""
    known = _record(name)
    if known is None or known["boot"] != boot_id():
        return None
    pid = int(known["pid"])
    found = _stat(pid)
    if found is None or found[0] in "ZX" or found[1] != known["started"]:
        return None
    return pid


def recorded() -> list[str]:
    """Returns the names of all processes on record, alive or not."""
    return sorted(file.stem for file in RECORDS.glob("*.json"))


def send(name: str, number: signal.Signals) -> None:
    """Signals a recorded process. Does nothing when it is gone."""
    pid = pid_of(name)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if pid_of(name) == pid:  # Still the same one, now that the descriptor pins it.
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def stop(*names: str, grace: float = 0) -> None:
    """Ends processes and drops their records: SIGTERM first if `grace` (seconds) is given."""
    if grace:
        for name in names:
            send(name, signal.SIGTERM)
        wait_until(lambda: not any(map(pid_of, names)), seconds=grace)
    for name in names:
        send(name, signal.SIGKILL)
    if not wait_until(lambda: not any(map(pid_of, names)), seconds=10):
        stuck = ", ".join(f"{name} (process {pid_of(name)})" for name in names if pid_of(name))
        raise DevclusterError(f"SIGKILL did not end {stuck}; is it waiting for a disk?")
    for name in names:
        (RECORDS / f"{name}.json").unlink(missing_ok=True)


def start(process: Process) -> None:
    """Starts a process in a session of its own, with its output in `log/NAME.log`."""
    fingerprint = process.fingerprint()
    LOGS.mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)

    def enter() -> None:
        """Runs in the child: it records itself, so no interrupt can leave it unrecorded."""
        pid = os.getpid()
        found = _stat(pid)
        known = {"pid": pid, "started": found and found[1], "boot": boot_id()}
        if process.cgroup:
            (process.cgroup / "cgroup.procs").write_text(str(pid))
        write(RECORDS / f"{process.name}.json", json.dumps(known | {"fingerprint": fingerprint}))

    base = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    with (LOGS / f"{process.name}.log").open("ab") as log:
        child = subprocess.Popen(
            process.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=STATE,
            env=base | {"HOME": str(STATE)} | process.env,
            start_new_session=True,
            preexec_fn=enter,  # Safe, because this program has one thread.
        )
    _CHILDREN.append(child)


def is_current(process: Process) -> bool:
    """Returns whether a process runs with the command line and files that it should have."""
    known = _record(process.name)
    return (
        pid_of(process.name) is not None
        and known is not None
        and known.get("fingerprint") == process.fingerprint()
    )


def runs_well(process: Process) -> bool:
    """Returns whether a process runs as it should and answers."""
    return is_current(process) and wait_until(process.healthy, seconds=3)


def launch(process: Process) -> bool:
    """Starts a process unless it runs well already. Does not wait for it.

    Raises:
        DevclusterError: Another program answers in its place.
    """
    if runs_well(process):
        return False
    if pid_of(process.name):
        say(f"           {process.name} is stale or does not answer: starting it again")
        stop(process.name, grace=5)
    if process.healthy():  # Or that program would be taken for it, while it dies of the same port.
        raise DevclusterError(
            f"another program answers in place of {process.name}: end it (`ss -ltnp` names it; a"
            " cluster of another clone ends by `make cluster-down` there), then try again"
        )
    start(process)
    return True


def await_healthy(process: Process) -> None:
    """Waits until a process answers.

    Raises:
        DevclusterError: It ended, or did not answer in time; the message holds its last words.
    """

    def settled() -> bool:
        return pid_of(process.name) is None or process.healthy()

    answered = wait_until(settled, seconds=process.patience)
    if answered and pid_of(process.name):
        return
    log = LOGS / f"{process.name}.log"
    words = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    what = "does not answer" if pid_of(process.name) else "ended"
    raise DevclusterError(f"{process.name} {what}. The last lines of `{log}`:\n{words}")


def ensure(*processes: Process) -> None:
    """Has all `processes` running and answering, started side by side."""
    started = [process for process in processes if launch(process)]
    for process in started:
        with step(process.name):
            await_healthy(process)
