"""The training processes of this node: torchrun's command line, its environment, its life.

torchrun only spawns (`--max-restarts 0`): a failed gang ends as a whole and is started anew. Its
static rendezvous is used, since who takes part is known: node i of n, all at node 0's address.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmtrain_api.layout import RENDEZVOUS_PORT
from llmtrain_api.runfile import RunFile
from llmtrain_api.tracking import CREDENTIALS
from llmtrain_trainer.verdict import ProcessEnd

WORKER_MODULE = "llmtrain_trainer.worker"
COMMAND_MODULE = "llmtrain_trainer.command"
"""What stands in its place where a command of the user's own runs."""
FAILURES = "torchrun-failures.json"
_AGENT_LOG = "torchrun.log"
_SECONDS_TO_DIE = 5.0  # After SIGKILL.
_LONGEST_WAIT = 86_400  # Seconds in the rendezvous for nodes whose pods are late.


@dataclass(frozen=True)
class Place:
    """Which part of which gang these processes are."""

    run: RunFile
    attempt: int
    restart: int
    node: int


def command(place: Place, workdir: Path, *, port: int, worker_module: str) -> list[str]:
    """Returns the command line that starts this node's processes.

    Args:
        place: Which part of which gang they are.
        workdir: The folder in which launcher and processes meet.
        port: Where all nodes meet, on node 0.
        worker_module: The module that each process runs.
    """
    spec, nodes = place.run.spec, place.run.nodes
    wait = min(spec.start_timeout_seconds, _LONGEST_WAIT)
    return [
        *(sys.executable, "-m", "llmtrain_trainer.gang", str(workdir / FAILURES)),
        *("--nnodes", str(nodes)),
        *("--nproc-per-node", str(place.run.processes_per_node)),
        *("--node-rank", str(place.node)),
        *("--master-addr", place.run.master_address if nodes > 1 else "127.0.0.1"),
        *("--master-port", str(port)),
        *("--rdzv-id", f"{place.run.name}-a{place.attempt}r{place.restart}"),
        *("--rdzv-conf", f"timeout={wait}"),
        *("--max-restarts", "0"),
        *("--monitor-interval", "0.1"),
        # By itself it would kill 30 s after SIGTERM, whatever the pod's grace time.
        *("--shutdown-timeout", str(spec.workers.termination_grace_period_seconds)),
        *("--log-dir", str(workdir / "processes"), "--redirects", "3"),
        *("-m", worker_module, str(workdir)),
    ]


def environment(
    given: Mapping[str, str], *, cores: int, processes: int, withheld: Collection[str] = ()
) -> dict[str, str]:
    """Returns the environment of the processes; what the user set wins.

    They do not get the storage account, nor the variables `withheld`: they have no business with
    storage or trackers. What the libraries are told is in `worker`.
    """
    ours = {
        # torchrun sets it only for more than one process, and then to 1.
        "OMP_NUM_THREADS": str(max(1, cores // processes)),
        "PYTHONUNBUFFERED": "1",
        "NCCL_DEBUG": "WARN",
    }
    rest = {
        name: value
        for name, value in given.items()
        if not name.startswith("AWS_") and name not in withheld
    }
    return {**ours, **rest}


def port_of(place: Place) -> int:
    """Returns the port where the gang meets: a free one where no other node needs to know it."""
    if place.run.nodes > 1:
        return RENDEZVOUS_PORT + place.restart
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Gang:
    """torchrun and its processes on this node."""

    process: subprocess.Popen[bytes]
    workdir: Path
    rank: int | None = None
    """Rank of the process, where it is the training process itself and not torchrun."""

    def exit_code(self) -> int | None:
        """Returns torchrun's exit code, or nothing while it runs."""
        return self.process.poll()

    def ends(self) -> list[ProcessEnd]:
        """Returns how the processes that failed ended, first one first."""
        if self.rank is not None:
            code = self.process.poll()
            return [ProcessEnd(self.rank, code)] if code else []
        file = self.workdir / FAILURES
        if not file.exists():
            return []
        return [ProcessEnd(**each) for each in json.loads(file.read_text(encoding="utf-8"))]

    def terminate(self) -> None:
        """Passes SIGTERM on to the training processes: torchrun does so itself."""
        with contextlib.suppress(ProcessLookupError):
            if self.rank is None:
                self.process.send_signal(signal.SIGTERM)
            else:  # With all that the command has started, as torchrun does it.
                os.killpg(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends everything at once; torchrun first, so that it does not react to the rest.

        Its processes are sessions of their own, so each is named.
        """
        below = descendants(self.process.pid)
        for pid in [self.process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # Stuck in a device: the pod's end.
            self.process.wait(_SECONDS_TO_DIE)

    @property
    def agent_log(self) -> Path:
        """The file into which torchrun itself prints."""
        return self.workdir / _AGENT_LOG

    def output_files(self, local_rank: int) -> list[Path]:
        """Returns the files into which a process prints, once it has been started."""
        return sorted(self.workdir.glob(f"processes/*/attempt_0/{local_rank}/std*.log"))


def start(
    place: Place,
    workdir: Path,
    *,
    cores: int,
    worker_module: str = WORKER_MODULE,
    more: Mapping[str, str] | None = None,
) -> Gang:
    """Starts the training processes of this node; `more` is what their environment has besides."""
    processes = place.run.processes_per_node
    with (workdir / _AGENT_LOG).open("wb") as log:
        process = subprocess.Popen(
            command(place, workdir, port=port_of(place), worker_module=worker_module),
            env={**_environment(place, cores, processes), **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the launcher, which then saves a checkpoint.
        )
    return Gang(process, workdir)


def _environment(place: Place, cores: int, processes: int) -> dict[str, str]:
    withheld = CREDENTIALS if place.run.spec.tracking is not None else ()
    return environment(os.environ, cores=cores, processes=processes, withheld=withheld)


def start_alone(
    place: Place, workdir: Path, *, cores: int, worker_module: str, more: Mapping[str, str]
) -> Gang:
    """Starts one process on this node without torchrun, which needs torch; the rest as `start`."""
    output = workdir / "processes" / "alone" / "attempt_0" / "0"
    output.mkdir(parents=True)
    with (output / "stdout.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", worker_module, str(workdir)],
            env={
                **_environment(place, cores, processes=1),
                **variables_of(place, port=port_of(place)),
                **more,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Gang(process, workdir, rank=place.node)


def variables_of(place: Place, *, port: int) -> dict[str, str]:
    """Returns what torchrun would tell the one process of a node."""
    nodes = place.run.spec.workers.nodes
    return {
        "RANK": str(place.node),
        "LOCAL_RANK": "0",
        "GROUP_RANK": str(place.node),
        "WORLD_SIZE": str(nodes),
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": place.run.master_address if nodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def descendants(pid: int) -> list[int]:
    """Returns the processes below `pid`, from Linux's /proc; deepest last."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # It ended while we looked.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def reap(own: int) -> None:
    """Collects ended orphans, which fall to PID 1; the child `own` is left to its Popen."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == own:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)
