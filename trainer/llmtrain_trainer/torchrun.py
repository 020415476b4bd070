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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmtrain_api.layout import RENDEZVOUS_PORT
from llmtrain_trainer.verdict import ProcessEnd
from llmtrain_trainer.workdir import Job

WORKER_MODULE = "llmtrain_trainer.worker"
FAILURES = "torchrun-failures.json"
_AGENT_LOG = "torchrun.log"
_RENDEZVOUS_SECONDS = 900
"""How long torchrun waits for its peers, all of whom have said that they are ready."""


def command(
    job: Job, workdir: Path, *, port: int, shutdown_seconds: int, worker_module: str
) -> list[str]:
    """Returns the command line that starts this node's processes.

    Args:
        job: What to do.
        workdir: The folder in which launcher and processes meet.
        port: Where all nodes meet, on node 0.
        shutdown_seconds: Seconds between SIGTERM and SIGKILL when torchrun ends its workers; by
            itself it would kill after 30 s whatever the pod's grace time.
        worker_module: The module that each process runs.
    """
    workers = job.run.spec.workers
    return [
        *(sys.executable, "-m", "llmtrain_trainer.gang", str(workdir / FAILURES)),
        *("--nnodes", str(workers.nodes)),
        *("--nproc-per-node", str(workers.processes_per_node)),
        *("--node-rank", str(job.node)),
        *("--master-addr", job.run.master_address if workers.nodes > 1 else "127.0.0.1"),
        *("--master-port", str(port)),
        *("--rdzv-id", f"{job.run.name}-a{job.run.attempt}r{job.restart}"),
        *("--rdzv-conf", f"timeout={_RENDEZVOUS_SECONDS}"),
        *("--max-restarts", "0"),
        *("--monitor-interval", "0.1"),
        *("--shutdown-timeout", str(shutdown_seconds)),
        *("--log-dir", str(workdir / "processes"), "--redirects", "3"),
        *("-m", worker_module, str(workdir)),
    ]


def environment(given: Mapping[str, str], *, cores: int, processes: int) -> dict[str, str]:
    """Returns the environment of the processes; what the user set wins.

    They do not get the storage account: they have no business with storage.
    """
    ours = {
        # torchrun sets it only for more than one process, and then to 1.
        "OMP_NUM_THREADS": str(max(1, cores // processes)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NCCL_DEBUG": "WARN",
    }
    rest = {name: value for name, value in given.items() if not name.startswith("AWS_")}
    return {**ours, **rest}


def port_of(job: Job) -> int:
    """Returns the port where the gang meets: a free one where no other node needs to know it."""
    if job.run.spec.workers.nodes > 1:
        return RENDEZVOUS_PORT + job.restart
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Gang:
    """torchrun and its processes on this node."""

    process: subprocess.Popen[bytes]
    workdir: Path

    def exit_code(self) -> int | None:
        """Returns torchrun's exit code, or nothing while it runs."""
        return self.process.poll()

    def ends(self) -> list[ProcessEnd]:
        """Returns how the processes that failed ended, first one first."""
        file = self.workdir / FAILURES
        if not file.exists():
            return []
        return [ProcessEnd(**each) for each in json.loads(file.read_text(encoding="utf-8"))]

    def terminate(self) -> None:
        """Tells torchrun to end its processes: SIGTERM, then SIGKILL after its own time."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends everything at once. Processes are sessions of their own, so each is named."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def agent_log(self) -> Path:
        """The file into which torchrun itself prints."""
        return self.workdir / _AGENT_LOG

    def output_files(self, local_rank: int) -> list[Path]:
        """Returns the files into which a process prints, once it has been started."""
        return sorted(self.workdir.glob(f"processes/*/attempt_0/{local_rank}/std*.log"))


def start(
    job: Job,
    workdir: Path,
    *,
    cores: int,
    shutdown_seconds: int,
    worker_module: str = WORKER_MODULE,
) -> Gang:
    """Starts the training processes of this node."""
    line = command(
        job,
        workdir,
        port=port_of(job),
        shutdown_seconds=shutdown_seconds,
        worker_module=worker_module,
    )
    processes = job.run.spec.workers.processes_per_node
    with (workdir / _AGENT_LOG).open("wb") as log:
        process = subprocess.Popen(
            line,
            env=environment(os.environ, cores=cores, processes=processes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the launcher, which then saves a checkpoint.
        )
    return Gang(process, workdir)


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
