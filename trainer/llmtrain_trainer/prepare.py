"""Before training: who owns the prefix, what is read, where to go on, and are all nodes there."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrain_api.errors import ConfigError, DataError, LLMTrainError
from llmtrain_api.exits import ExitClass
from llmtrain_api.layout import CHECKPOINTS, MANIFEST, restart_record
from llmtrain_api.runfile import RunFile
from llmtrain_trainer import checkpoints, inputs, owner, preflight
from llmtrain_trainer.data import rows
from llmtrain_trainer.data.sources import read
from llmtrain_trainer.inputs import Downloaded
from llmtrain_trainer.records import (
    CheckpointManifest,
    FinalManifest,
    NodeState,
    Start,
    now,
    read_record,
    to_bytes,
)
from llmtrain_trainer.storage import Folder
from llmtrain_trainer.tracking import demands
from llmtrain_trainer.verdict import Verdict

_POLL_SECONDS = 0.5
_RESTART = 0
"""Failed gangs end the attempt; the operator starts the next one."""

Tell = Callable[[str], None]


class PeerLostError(LLMTrainError):
    """Another node of the gang has ended."""

    exit_class = ExitClass.PEER_LOST


@dataclass(frozen=True)
class Settled:
    """Which attempt this is, and what it goes on from."""

    start: Start
    resume_from: Path | None = None
    """Folder of the verified checkpoint on this node's disk."""

    checkpoints: Sequence[CheckpointManifest] = ()
    """The usable checkpoints in storage, newest first; node 0 only."""

    best_from: Path | None = None
    """Folder of the best checkpoint, where it is another one and the run wants it at the end."""


def settle(
    output: Folder, run: RunFile, node: int, scratch: Path, tell: Tell
) -> Settled | FinalManifest:
    """Returns which attempt this is and what it goes on from, or the finished results.

    Node 0 decides and writes the record; the others wait for it.
    """
    if node > 0:
        return _follow(output, run, node, scratch, tell)
    owner.claim(output, run)
    if done := owner.finished(output, run):
        return done
    newest = owner.newest_start(output)
    if newest is not None:
        owner.wait_until_alone(output, newest, run, tell)
    attempt = owner.next_attempt(newest, run)
    inputs.freeze(output, run)
    best = checkpoints.download_best(output, scratch, tell)
    start = Start(
        attempt=attempt,
        restart=_RESTART,
        run_uid=run.uid,
        run_attempt=run.attempt,
        launcher=uuid.uuid4().hex,
        resume_from=best.line[0].name if best else None,
        created_at=now(),
    )
    owner.begin(output, start)
    checkpoints.delete_torn(output, before=(attempt, _RESTART))
    if best is None:
        return Settled(start)
    best_from = _fetch_best(output, run, best.line[0], scratch, node, tell)
    return Settled(start, best.folder, best.line, best_from)


def _follow(
    output: Folder, run: RunFile, node: int, scratch: Path, tell: Tell
) -> Settled | FinalManifest:
    if run.attempt is None:
        raise ConfigError(
            "attempt",
            "it is not set, and there is more than one node",
            "set the same attempt in the run file of every node",
        )
    deadline = time.monotonic() + run.spec.start_timeout_seconds
    while True:
        if done := owner.finished(output, run):
            return done
        start = owner.newest_start(output)
        if start is not None and owner.is_mine(start, run):
            break
        if time.monotonic() > deadline:
            raise PeerLostError("node 0 did not start within startTimeoutSeconds")
        tell("waiting for node 0")
        time.sleep(_POLL_SECONDS)
    if start.resume_from is None:
        return Settled(start)
    key = f"{CHECKPOINTS}/{start.resume_from}/{MANIFEST}"
    manifest = read_record(output, key, CheckpointManifest)
    if manifest is None:
        raise PeerLostError(f"{output.uri_of(key)}: node 0 chose it, and it is gone")
    tell(f"downloading checkpoint {manifest.name}")
    folder = checkpoints.download_checkpoint(output, manifest, scratch, node=node)
    best_from = _fetch_best(output, run, manifest, scratch, node, tell)
    return Settled(start, folder, best_from=best_from)


def _fetch_best(
    output: Folder,
    run: RunFile,
    newest: CheckpointManifest,
    scratch: Path,
    node: int,
    tell: Tell,
) -> Path | None:
    """Downloads the best checkpoint so far, where the run wants its weights at the end."""
    evaluation = run.spec.evaluation
    if evaluation is None or not evaluation.load_best_model_at_end:
        return None
    if newest.best in (None, newest.name):
        return None
    manifest = read_record(output, f"{CHECKPOINTS}/{newest.best}/{MANIFEST}", CheckpointManifest)
    if manifest is None:
        tell(f"the best checkpoint, {newest.best}, is gone: the result may be a later model")
        return None
    tell(f"downloading checkpoint {manifest.name}, the best one")
    try:
        return checkpoints.download_checkpoint(output, manifest, scratch, node=node)
    except DataError as error:  # The run can go on without it, and says what it trained at last.
        tell(f"the best checkpoint is of no use: {error}")
        return None


def fetch_and_check(output: Folder, run: RunFile, scratch: Path, tell: Tell) -> Downloaded:
    """Downloads the inputs and checks all that can be checked before a process is started.

    Raises:
        ConfigError: The model and the spec do not fit together, or a tracker cannot be told.
        DataError: An input is missing, empty, malformed, or not what the run began with.
    """
    demands.check(run.spec.tracking, os.environ)
    frozen = inputs.freeze(output, run)
    weights = run.task is None
    downloaded = inputs.fetch(run, frozen, scratch, tell, weights=weights)
    if run.spec.stage == "Custom":  # What it must look like only the command knows.
        return downloaded
    tell("checking the model and the rows")
    for uri in inputs.model_folders(run.spec).values():
        checkpoints.check_whole(uri, downloaded.model_files)
    if downloaded.model is not None and weights:
        preflight.check_model(downloaded.model, run.spec, downloaded.adapter)
    if downloaded.reference is not None:
        uri = next(uri for field, uri in inputs.model_folders(run.spec).items() if "ref" in field)
        length = run.spec.require_training().max_length
        preflight.check_size(downloaded.reference, uri, length, "the reference model")
    rows.check(downloaded.dataset_files, run.spec, read)
    return downloaded


def node_state_key(start: Start, node: int) -> str:
    """Returns the key of a node's word to its peers."""
    return f"{restart_record(start.attempt, start.restart).removesuffix('.json')}/node-{node}.json"


def meet(output: Folder, run: RunFile, start: Start, node: int, tell: Tell) -> None:
    """Waits until every node of the gang is ready, saying which ones are missing.

    Raises:
        PeerLostError: A node has ended, or is not there within `startTimeoutSeconds`.
    """
    nodes = run.nodes
    if nodes == 1:
        return
    mine = NodeState(launcher=start.launcher)
    output.write(node_state_key(start, node), to_bytes(mine))
    deadline = time.monotonic() + run.spec.start_timeout_seconds
    missing = set(range(nodes)) - {node}
    while missing:
        missing -= {other for other in missing if check_alive(output, start, other)}
        if missing and time.monotonic() > deadline:
            raise PeerLostError(f"nodes {sorted(missing)} are not there in startTimeoutSeconds")
        if missing:
            ready = nodes - len(missing)
            tell(f"waiting for {_nodes(missing)} to be ready ({ready} of {nodes} are)")
            time.sleep(_POLL_SECONDS)


def check_alive(output: Folder, start: Start, node: int) -> bool:
    """Returns whether a peer has said that it is ready.

    Raises:
        PeerLostError: It has ended other than by success.
    """
    state = read_record(output, node_state_key(start, node), NodeState)
    if state is not None and state.exit_class not in (None, ExitClass.SUCCESS):
        raise PeerLostError(f"node {node} has ended: {state.message}")
    return state is not None


def _nodes(missing: set[int]) -> str:
    names = ", ".join(str(each) for each in sorted(missing)[:8])
    return f"node {names}" if len(missing) == 1 else f"nodes {names}"


def say_ended(output: Folder, start: Start, node: int, verdict: Verdict) -> None:
    """Tells the peers that this node has ended, and how."""
    state = NodeState(
        launcher=start.launcher, exit_class=verdict.exit_class, message=verdict.message[:500]
    )
    output.write(node_state_key(start, node), to_bytes(state))
