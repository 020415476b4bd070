"""The records that the launchers keep in storage under `output.uri`; their keys are in `layout`.

Each is written once and as a whole, and names the format that it is in.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import ValidationError

from llmtrain_api.base import ApiModel
from llmtrain_api.errors import DataError
from llmtrain_api.exits import ExitClass
from llmtrain_trainer.storage import Folder


class Owner(ApiModel):
    """`owner.json`: the run that a prefix belongs to."""

    format_version: Literal[1] = 1
    name: str
    namespace: str = ""
    uid: str = ""
    spec_hash: str
    created_at: str

    @property
    def title(self) -> str:
        """The run's name as a person says it, with its namespace where there is one."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Start(ApiModel):
    """`attempts/<n>/restarts/<r>.json`: the one authority on what a gang does; by node 0."""

    format_version: Literal[1] = 1
    attempt: int
    """Number of the attempt in storage: counts on through all runs that owned the prefix."""

    restart: int
    run_uid: str
    run_attempt: int | None = None
    """The attempt as the operator counts it; a run that is applied anew begins with 1 again."""

    launcher: str
    """Random id of the launcher that wrote this, so that it knows its own record again."""

    resume_from: str | None = None
    """Name of the checkpoint to go on from."""

    created_at: str


class Heartbeat(ApiModel):
    """`attempts/<n>/alive.json`: node 0 is alive; rewritten every few seconds until it ends."""

    launcher: str
    beat: int
    ended: bool = False


class NodeState(ApiModel):
    """`attempts/<n>/restarts/<r>/node-<i>.json`: a node's word to its peers."""

    launcher: str
    exit_class: ExitClass | None = None
    """How it ended; none while it is ready or at work."""

    message: str = ""


class FrozenInput(ApiModel):
    """One object that the run reads."""

    uri: str
    size: int
    etag: str


class FrozenInputs(ApiModel):
    """`inputs.json`: every object that the run reads, as it was when the first attempt began."""

    format_version: Literal[1] = 1
    inputs: list[FrozenInput]


class CheckpointFile(ApiModel):
    """One file of a checkpoint."""

    path: str
    """Its path in the checkpoint's folder on the node, as transformers named it."""

    key: str
    """Its path in the checkpoint's folder in storage."""

    node: int
    size: int
    sha256: str


class NodeManifest(ApiModel):
    """`manifest.node-<i>.json`: the part of a checkpoint that one node wrote."""

    format_version: Literal[1] = 1
    node: int
    files: list[CheckpointFile]


class CheckpointManifest(ApiModel):
    """`manifest.json` of a checkpoint: written last, so that what it names is all there."""

    format_version: Literal[1] = 1
    name: str
    parent: str | None = None
    """The checkpoint that training went on from to get here, or the one saved before this one."""

    attempt: int
    restart: int
    step: int
    samples: int | None = None
    """Rows (packed sequences) trained so far; not known of a command of the user's own."""

    seed: int | None = None
    world_size: int
    spec_hash: str
    created_at: str
    best: str | None = None
    """Name of the best checkpoint so far, which may be this one; none where none is sought."""

    files: list[CheckpointFile]


class Tombstone(ApiModel):
    """`tombstone.json` of a checkpoint: it must not be used any more.

    `Corrupt` speaks of its stored bytes only; `RolledBack` of what was trained since as well.
    """

    format_version: Literal[1] = 1
    kind: Literal["Corrupt", "RolledBack"]
    reason: str
    created_at: str


class FinalFile(ApiModel):
    """One file of the results; `path` is relative to `output.uri`."""

    path: str
    size: int
    sha256: str


class FinalManifest(ApiModel):
    """`model/manifest.json`: the run is finished; written last of all."""

    format_version: Literal[1] = 1
    name: str
    spec_hash: str
    attempt: int
    restart: int
    created_at: str
    files: list[FinalFile]


_Record = TypeVar("_Record", bound=ApiModel)


def now() -> str:
    """Returns the present moment in UTC, RFC 3339, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_bytes(record: ApiModel) -> bytes:
    """Returns the record as the JSON that storage holds."""
    return record.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode()


def read_record(folder: Folder, path: str, kind: type[_Record]) -> _Record | None:
    """Returns the record at `path`, or nothing where there is none.

    Raises:
        DataError: What lies there is not such a record.
    """
    data = folder.read(path)
    if data is None:
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            folder.uri_of(path),
            f"not a {kind.__name__} of this version of llmtrain ({error.error_count()} faults)",
            "use the version that wrote it, or another output.uri",
        ) from error
