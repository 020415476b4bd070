"""Who owns an output prefix, and which attempt may write there.

The first launcher claims the prefix. A run with the same spec hash goes on where the last one
stopped; any other is refused. Attempts count on for ever within a prefix: a run that was deleted
and applied again starts with attempt 1 in the operator's count, but with the next free number here,
so that no key is ever written twice and (attempt, restart) stays a fence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from llmtrain_api.errors import ConfigError, LLMTrainError
from llmtrain_api.layout import FINAL_MANIFEST, OWNER, RUN, restart_record
from llmtrain_api.runfile import RunFile, spec_hash
from llmtrain_trainer.records import (
    FinalManifest,
    Heartbeat,
    Owner,
    Start,
    now,
    read_record,
    to_bytes,
)
from llmtrain_trainer.storage import Folder

BEAT_SECONDS = 15.0
"""How often node 0 says that it is alive."""
SILENCE_SECONDS = 45.0
"""A launcher whose heartbeat stands still for so long is dead."""
_GRACE_BEYOND = 60.0  # Seconds beyond its grace time that another run's launcher may take to end.
_POLL_SECONDS = 1.0
_LONG_DEAD = timedelta(minutes=10)  # Too old for any difference of clocks to matter.
_START = re.compile(r"/restarts/(\d+)\.json$")


def alive_key(attempt: int) -> str:
    """Returns the key of an attempt's heartbeat."""
    return f"attempts/{attempt}/alive.json"


def claim(output: Folder, run: RunFile) -> Owner:
    """Makes the run the owner of the prefix, or finds that its spec already is.

    Raises:
        ConfigError: The prefix belongs to a run with another spec.
    """
    mine = Owner(
        name=run.name,
        namespace=run.namespace,
        uid=run.uid,
        spec_hash=spec_hash(run.spec),
        created_at=now(),
    )
    if output.create(OWNER, to_bytes(mine)):
        output.create(RUN, to_bytes(run))
        return mine
    owner = read_record(output, OWNER, Owner)
    if owner is None:  # Deleted this moment by a person: theirs to explain.
        raise ConfigError("output.uri", f"{OWNER} vanished from {output.uri}", "try again")
    refusal = refuse(owner, mine, output.uri)
    if refusal:
        raise refusal
    return owner


def refuse(owner: Owner, mine: Owner, uri: str) -> ConfigError | None:
    """Returns why `mine` may not write under `uri`, or nothing where it may."""
    if owner.spec_hash == mine.spec_hash:
        return None
    return ConfigError(
        "output.uri",
        f"{uri}/ belongs to the run {owner.title} of {owner.created_at}, which has another spec",
        "give this run an output.uri of its own, or apply the spec that is in its run.json there",
    )


def finished(output: Folder, run: RunFile) -> FinalManifest | None:
    """Returns the manifest of the results if this very spec has been trained to its end."""
    manifest = read_record(output, FINAL_MANIFEST, FinalManifest)
    if manifest is None or manifest.spec_hash != spec_hash(run.spec):
        return None
    return manifest


def newest_start(output: Folder) -> Start | None:
    """Returns the record of the newest (attempt, restart), or nothing before the first."""
    attempts = [int(name) for name in output.subfolders("attempts") if name.isdigit()]
    for attempt in sorted(attempts, reverse=True):
        files = output.entries(f"attempts/{attempt}/restarts")
        restarts = [int(match[1]) for file in files if (match := _START.search(file.path))]
        if restarts:
            return read_record(output, restart_record(attempt, max(restarts)), Start)
    return None


def all_starts(output: Folder) -> list[Start]:
    """Returns the records of all attempts so far, oldest first."""
    starts = [
        read_record(output, file.path, Start)
        for attempt in output.subfolders("attempts")
        for file in output.entries(f"attempts/{attempt}/restarts")
        if _START.search(file.path)
    ]
    return sorted(filter(None, starts), key=lambda start: (start.attempt, start.restart))


def next_attempt(newest: Start | None, run: RunFile) -> int:
    """Returns the number in storage for this attempt of `run`.

    Raises:
        LLMTrainError: A newer attempt of the same run has begun, so this one is left over.
    """
    if newest is None:
        return run.attempt or 1
    if (
        run.attempt is not None
        and newest.run_uid == run.uid
        and newest.run_attempt is not None
        and newest.run_attempt >= run.attempt
    ):
        raise LLMTrainError(
            f"attempt {run.attempt} was already started (the newest is {newest.run_attempt}):"
            " start the next one"
        )
    return max(run.attempt or 1, newest.attempt + 1)


def is_mine(start: Start, run: RunFile) -> bool:
    """Returns whether a record was written for this very attempt of this very run."""
    return start.run_uid == run.uid and start.run_attempt == run.attempt


def wait_until_alone(
    output: Folder, newest: Start, run: RunFile, tell: Callable[[str], None]
) -> None:
    """Waits for the end of another run's launcher that still writes under the prefix.

    A run that was deleted and applied again at once meets its own old pods, which save a checkpoint
    in their grace time. Attempts of one run are kept apart by the operator.

    Raises:
        ConfigError: The other one is alive after the grace time.
    """
    if newest.run_uid == run.uid and run.uid:
        return
    deadline = time.monotonic() + run.spec.workers.termination_grace_period_seconds + _GRACE_BEYOND
    seen: Heartbeat | None = None
    changed = time.monotonic()
    while True:
        beat = read_record(output, alive_key(newest.attempt), Heartbeat)
        if beat is None or beat.ended or _long_dead(output, newest.attempt):
            return
        if beat != seen:
            seen, changed = beat, time.monotonic()
        if time.monotonic() - changed > SILENCE_SECONDS:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                "output.uri",
                f"{output.uri}/ is being written by attempt {newest.attempt} of another run with"
                f" this spec (uid {newest.run_uid or 'none'})",
                "delete that run, wait for it, or give this one an output.uri of its own",
            )
        tell(
            "waiting for the pods of an earlier run with this spec, which still write to the prefix"
        )
        time.sleep(_POLL_SECONDS)


def _long_dead(output: Folder, attempt: int) -> bool:
    entries = output.entries(f"attempts/{attempt}")
    modified = [entry.modified for entry in entries if entry.path == alive_key(attempt)]
    return not modified or datetime.now(UTC) - modified[0] > _LONG_DEAD


def begin(output: Folder, start: Start) -> None:
    """Writes the record that starts (attempt, restart).

    Raises:
        LLMTrainError: Another launcher has started this pair.
    """
    key = restart_record(start.attempt, start.restart)
    if not output.create(key, to_bytes(start)):
        raise LLMTrainError(
            f"{output.uri_of(key)}: another launcher started this attempt: start the next one"
        )


def still_newest(output: Folder, start: Start) -> bool:
    """Returns whether no later pair has begun, so that this one may still delete and finish."""
    newest = newest_start(output)
    return newest is not None and newest.launcher == start.launcher
