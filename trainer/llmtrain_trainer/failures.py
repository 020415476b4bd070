"""What kind of failure an exception is, and how a process tells the launcher."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from llmtrain_api.errors import LLMTrainError
from llmtrain_api.exits import ExitClass
from llmtrain_trainer.workdir import RankFailure, failure_file, write_atomically

_MESSAGE_LIMIT = 2000

_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "outofmemoryerror",
    "memoryerror",
    "defaultcpuallocator",
    "std::bad_alloc",
    "cublas_status_alloc_failed",
)
# What gloo, NCCL and the rendezvous store say when the other end has gone.
_PEER_LOST = (
    "connection reset",
    "connection was reset",
    "connection closed",
    "connection was closed",
    "connection refused",
    "connection was refused",
    "no route to host",
    "broken pipe",
    "socket closed",
    "socket timeout",
    "timed out after",
    "timed out waiting",
    "remote process exited",
    "ncclremoteerror",
    "ncclsystemerror",
    "distnetworkerror",
    "diststoreerror",
    "rendezvoustimeout",
    "nccl communicator was aborted",
    "watchdog caught collective operation timeout",
    "recvfailed",
    "sendfailed",
)


_NOT_DETERMINISTIC = "does not have a deterministic implementation"
"""What torch says of an operation where `training.deterministic` is set; no retry helps."""


class DivergedError(LLMTrainError):
    """The loss, the gradients or the weights are no longer finite."""

    exit_class = ExitClass.DIVERGED


def classify(error: BaseException) -> ExitClass:
    """Returns the exit class of an exception, by its type where it is ours, else by its message."""
    if isinstance(error, LLMTrainError):
        return error.exit_class
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ExitClass.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and _NOT_DETERMINISTIC in str(error):
        return ExitClass.CONFIG
    if isinstance(error, (RuntimeError, OSError)):
        if isinstance(error, ConnectionError):
            return ExitClass.PEER_LOST
        return classify_words(str(error)) or ExitClass.INTERNAL
    return ExitClass.INTERNAL


def classify_words(text: str) -> ExitClass | None:
    """Returns the exit class that a message or a process's last lines speak of, if any."""
    lower = text.lower()
    if any(sign in lower for sign in _OUT_OF_MEMORY):
        return ExitClass.OUT_OF_MEMORY
    if any(sign in lower for sign in _PEER_LOST):
        return ExitClass.PEER_LOST
    return None


def report(error: BaseException, folder: Path, rank: int, step: int | None) -> ExitClass:
    """Writes the failure of this process to `folder` and returns its class."""
    exit_class = classify(error)
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    )
    failure = RankFailure(
        exit_class=exit_class,
        message=str(error)[:_MESSAGE_LIMIT] or name,
        exception=name[:256],
        rank=rank,
        step=step,
        time=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    )
    write_atomically(folder / failure_file(rank), failure.model_dump_json(by_alias=True))
    return exit_class


def rank_of_process() -> int:
    """Returns the global rank that torchrun gave this process; 0 when started without it."""
    return int(os.environ.get("RANK", "0"))


def local_rank_of_process() -> int:
    """Returns the rank among the processes of this node."""
    return int(os.environ.get("LOCAL_RANK", "0"))
