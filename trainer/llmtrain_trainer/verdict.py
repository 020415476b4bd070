"""Why this node's part of the gang ended: pure decisions, and the message for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from llmtrain_api.exits import EXIT_POLICIES, ExitClass, TerminationMessage
from llmtrain_trainer.failures import classify_words
from llmtrain_trainer.workdir import RankFailure

SIGNALLED = -9
MOST_BYTES = 4096
"""What the kubelet keeps of /dev/termination-log."""

_PREEMPTED_CODE = EXIT_POLICIES[ExitClass.PREEMPTED].code
_KILLED = (SIGNALLED, 128 - SIGNALLED)  # The latter as a shell says it of its child.
_OF_A_COMMAND = {
    policy.code: exit_class
    for exit_class, policy in EXIT_POLICIES.items()
    if exit_class not in (ExitClass.SUCCESS, ExitClass.PREEMPTED, ExitClass.NODE_LOST)
}
"""The exit codes by which a command says why it failed. That it was stopped only we know."""


@dataclass(frozen=True)
class ProcessEnd:
    """A training process that failed."""

    rank: int
    """Its global rank."""

    exit_code: int
    """Minus the number of the signal if it was killed."""

    seconds: float | None = None
    """When torchrun saw it, in seconds since 1970."""

    @property
    def time(self) -> str | None:
        """The same in UTC, RFC 3339."""
        if self.seconds is None:
            return None
        return datetime.fromtimestamp(self.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class GangEnd:
    """What is known when the spawning process of this node has ended."""

    exit_code: int
    """Of torchrun; it is 1 whatever the workers' was."""

    ends: Sequence[ProcessEnd] = ()
    """The processes that failed, first one first."""

    failures: Sequence[RankFailure] = ()
    """What failing ranks said of themselves."""

    preempted: bool = False
    """The processes saved a checkpoint and stopped because they were told to."""

    stop_asked: bool = False
    """This node was told to stop."""

    trained: bool = True
    """A step was trained."""

    oom_kills: int = 0
    """Processes of this container that the kernel killed for memory meanwhile."""

    last_lines: Sequence[str] = ()
    """What the failing process, or torchrun, printed last."""

    nodes: int = 1


@dataclass(frozen=True)
class Verdict:
    """Why a node ended, in the terms of the termination message."""

    exit_class: ExitClass
    message: str
    rank: int | None = None
    step: int | None = None
    exception: str = ""
    last_lines: Sequence[str] = ()
    time: str | None = None


def classify(end: GangEnd) -> Verdict:
    """Returns why the training processes of this node ended.

    A rank's own word comes first, then the kernel's (memory), then what the processes printed. What
    looks like a lost connection is blamed on a peer only if there is one.
    """
    if end.preempted or (end.ends and end.ends[0].exit_code == _PREEMPTED_CODE):
        return Verdict(ExitClass.PREEMPTED, "told to stop: a checkpoint was saved")
    if end.exit_code == 0:
        return Verdict(ExitClass.SUCCESS, "")
    spoken = _first_spoken(end.failures)
    if spoken is not None and spoken.exit_class is not ExitClass.PEER_LOST:
        return _verdict_of(spoken, end)
    first = end.ends[0] if end.ends else None
    if end.oom_kills and (first is None or first.exit_code == SIGNALLED):
        message = "the kernel killed a training process: the container's memory was used up"
        return _unspoken(ExitClass.OUT_OF_MEMORY, message, end)
    if end.stop_asked:
        too_late = "told to stop: the grace time ended before a checkpoint was saved"
        message = too_late if end.trained else "told to stop before a step was trained"
        return _unspoken(ExitClass.PREEMPTED, message, end)
    if spoken is not None:
        return _verdict_of(spoken, end)
    return _from_output(end)


def classify_command(end: GangEnd) -> Verdict:
    """Returns why a command of the user's own ended.

    What it leaves after an order to stop is not a result, whatever its exit code: a script may
    take its early end for the end of training. Else the code of an exit class says that class.
    """
    if end.preempted:
        return Verdict(ExitClass.PREEMPTED, "told to stop: the command was ended")
    if end.exit_code == 0:
        return Verdict(ExitClass.SUCCESS, "")
    spoken = _first_spoken(end.failures)
    if spoken is not None:
        return _verdict_of(spoken, end)
    first = end.ends[0] if end.ends else None
    if end.oom_kills and (first is None or first.exit_code in _KILLED):
        message = "the kernel killed a process: the container's memory was used up"
        return _unspoken(ExitClass.OUT_OF_MEMORY, message, end)
    told = _OF_A_COMMAND.get(first.exit_code) if first is not None else None
    if told is not None:
        return _unspoken(told, _how_it_ended(first), end)
    return _from_output(end)


def _first_spoken(failures: Sequence[RankFailure]) -> RankFailure | None:
    """Returns the failure that came first; one that blames a peer only if no other was told."""
    own = [each for each in failures if each.exit_class is not ExitClass.PEER_LOST]
    return min(own or failures, key=lambda each: each.time, default=None)


def _verdict_of(failure: RankFailure, end: GangEnd) -> Verdict:
    return Verdict(
        failure.exit_class,
        failure.message,
        failure.rank,
        failure.step,
        failure.exception,
        end.last_lines,
        failure.time,
    )


def _from_output(end: GangEnd) -> Verdict:
    """Judges by what the process that failed first printed, since it said nothing itself."""
    told = classify_words("\n".join(end.last_lines))
    how = _how_it_ended(end.ends[0] if end.ends else None)
    if told is ExitClass.OUT_OF_MEMORY:
        return _unspoken(ExitClass.OUT_OF_MEMORY, how, end)
    if end.nodes > 1 and told is ExitClass.PEER_LOST:
        return _unspoken(ExitClass.PEER_LOST, f"{how}: a peer is gone", end)
    return _unspoken(ExitClass.INTERNAL, how, end)


def _unspoken(exit_class: ExitClass, message: str, end: GangEnd) -> Verdict:
    """Returns a verdict over the process that failed first."""
    first = end.ends[0] if end.ends else None
    return Verdict(
        exit_class,
        message,
        rank=first.rank if first else None,
        last_lines=end.last_lines,
        time=first.time if first else None,
    )


def _how_it_ended(first: ProcessEnd | None) -> str:
    if first is None:
        return "torchrun failed before a training process did"
    if first.exit_code < 0:
        return f"training process {first.rank} was killed by signal {-first.exit_code}"
    return f"training process {first.rank} ended with exit code {first.exit_code}"


def termination_message(
    verdict: Verdict, *, node: int, step: int | None, time: str, latest_checkpoint: str
) -> TerminationMessage:
    """Returns the message for the operator, cut so that its JSON fits what the kubelet keeps."""
    lines = [line[:256] for line in verdict.last_lines][-8:]
    text = verdict.message[:2048]
    while True:
        message = TerminationMessage(
            exit_class=verdict.exit_class,
            message=text,
            node=node,
            rank=verdict.rank,
            step=verdict.step if verdict.step is not None else step,
            time=verdict.time or time,
            exception=verdict.exception[:256],
            last_lines=lines,
            latest_checkpoint=latest_checkpoint,
        )
        if len(to_json(message).encode()) <= MOST_BYTES:
            return message
        if lines:
            lines = lines[1:]
        else:
            text = text[: len(text) * 3 // 4]


def to_json(message: TerminationMessage) -> str:
    """Returns the message as it stands in /dev/termination-log."""
    return message.model_dump_json(by_alias=True, exclude_none=True)
