"""How a trainer ends: one enum that the launcher exits by and the operator decides by.

The exit code survives even where the termination message does not; both say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llmtrain_api.base import ApiModel, Time


class ExitClass(StrEnum):
    """Why a trainer pod ended. The value is also the reason of the condition."""

    SUCCESS = "Succeeded"
    CONFIG = "InvalidConfig"
    DATA = "InvalidData"
    OUT_OF_MEMORY = "OutOfMemory"
    DIVERGED = "Diverged"
    HANG = "Hang"
    PEER_LOST = "PeerLost"
    PREEMPTED = "Preempted"
    STORAGE = "StorageUnreachable"
    INTERNAL = "InternalError"
    NODE_LOST = "NodeLost"


@dataclass(frozen=True)
class ExitPolicy:
    """What follows from an exit class.

    `code` is the exit code of PID 1; `retry` whether a new attempt can help; `counts` whether that
    attempt uses up one of `restartPolicy.maxRestarts`; `hint` says what a person can do.
    """

    code: int
    retry: bool
    counts: bool
    hint: str


EXIT_POLICIES: dict[ExitClass, ExitPolicy] = {
    ExitClass.SUCCESS: ExitPolicy(0, retry=False, counts=False, hint=""),
    ExitClass.CONFIG: ExitPolicy(
        80,
        retry=False,
        counts=False,
        hint="Correct what is named and raise spec.retry; to correct the spec itself, delete this"
        " run and apply it again.",
    ),
    ExitClass.DATA: ExitPolicy(
        81, retry=False, counts=False, hint="Correct the input, then raise spec.retry."
    ),
    ExitClass.OUT_OF_MEMORY: ExitPolicy(
        82,
        retry=False,
        counts=False,
        hint="Lower training.microBatchSize or training.maxLength, set"
        " training.activationCheckpointing, or give the workers more memory, in a run of a new"
        " name.",
    ),
    ExitClass.DIVERGED: ExitPolicy(
        83,
        retry=False,
        counts=False,
        hint="Lower training.learningRate or raise training.warmupSteps, in a run of a new name.",
    ),
    ExitClass.HANG: ExitPolicy(84, retry=True, counts=True, hint="See the stacks in the logs."),
    ExitClass.PREEMPTED: ExitPolicy(
        85,
        retry=True,
        counts=False,
        hint="Nothing to do: the run goes on from its last checkpoint.",
    ),
    ExitClass.PEER_LOST: ExitPolicy(
        86, retry=True, counts=True, hint="See the failure of the other node."
    ),
    ExitClass.STORAGE: ExitPolicy(
        87, retry=True, counts=True, hint="Check storage.endpoint and that its server is up."
    ),
    ExitClass.INTERNAL: ExitPolicy(
        88, retry=True, counts=True, hint="See the last lines and the logs of that rank."
    ),
    # No process exits by this one: the operator says it of a pod whose node went away.
    ExitClass.NODE_LOST: ExitPolicy(
        89, retry=True, counts=True, hint="Nothing to do: a new attempt starts on another node."
    ),
}

_BY_CODE = {policy.code: exit_class for exit_class, policy in EXIT_POLICIES.items()}


def class_of_exit_code(code: int, reason: str = "") -> ExitClass:
    """Returns the class of a container that left no message.

    `reason` is the kubelet's word for it: `OOMKilled` counts whatever the code. Codes that are not
    ours (137 for SIGKILL, 139 for a crash) are internal errors.
    """
    if reason == "OOMKilled":
        return ExitClass.OUT_OF_MEMORY
    return _BY_CODE.get(code, ExitClass.INTERNAL)


class TerminationMessage(ApiModel):
    """What PID 1 leaves in /dev/termination-log, as JSON of at most 4 KiB."""

    exit_class: ExitClass
    """Why the pod ended."""

    message: Annotated[str, Field(max_length=2048)]
    """What happened and what to do, in a sentence or two."""

    node: Annotated[int, Field(ge=0)]
    """Index of the pod, `JOB_COMPLETION_INDEX`."""

    rank: Annotated[int, Field(ge=0)] | None = None
    """Global rank of the process that failed first on this node, where one did."""

    step: Annotated[int, Field(ge=0)] | None = None
    """Last optimizer step that this node knows of."""

    time: Time
    """When the failure happened, by this node's clock: the earliest of all nodes is the first."""

    exception: Annotated[str, Field(max_length=256)] = ""
    """Type of the Python exception, such as `torch.OutOfMemoryError`."""

    last_lines: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=8)] = []
    """Last lines of the process that failed."""

    latest_checkpoint: Annotated[str, Field(max_length=64)] = ""
    """Name of the newest checkpoint that is whole in storage, such as `120-a1r0`."""
