"""Checkpoints in storage: `checkpoints/<step>-a<n>r<r>/`, whole if the manifest is there.

Every node uploads the files that it wrote and then its `manifest.node-<i>.json`; node 0 writes
`manifest.json` over all parts. A file counts when its size and SHA-256 are those of the manifest.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from llmtrain_api.errors import DataError, StorageError
from llmtrain_api.layout import CHECKPOINTS, MANIFEST
from llmtrain_trainer.lineage import lineage, to_delete
from llmtrain_trainer.records import (
    CheckpointFile,
    CheckpointManifest,
    NodeManifest,
    Tombstone,
    now,
    read_record,
    to_bytes,
)
from llmtrain_trainer.storage import Folder
from llmtrain_trainer.transfer import download, upload
from llmtrain_trainer.workdir import InputFile

TOMBSTONE = "tombstone.json"
_NAME = re.compile(r"\d+-a\d+r\d+")  # As `layout.checkpoint_name` makes it.
_PARALLEL = 8
_POLL_SECONDS = 0.5


class PartsMissingError(StorageError):
    """Other nodes did not upload their parts of a checkpoint."""


def folder_of(name: str) -> str:
    """Returns the path of a checkpoint's folder under `output.uri`."""
    return f"{CHECKPOINTS}/{name}"


def node_manifest(node: int) -> str:
    """Returns the name of the record by which a node says that its part is uploaded."""
    return f"manifest.node-{node}.json"


def read_manifests(
    output: Folder, tell: Callable[[str], None] = lambda message: None
) -> tuple[list[CheckpointManifest], dict[str, Tombstone]]:
    """Returns the checkpoints that are whole in storage, and the tombstones by name.

    One whose manifest or tombstone cannot be read is none, which is told; folders with names that
    are not those of checkpoints are passed over.
    """
    manifests, tombstones = [], {}
    for name in _names(output):
        try:
            manifest = read_record(output, f"{folder_of(name)}/{MANIFEST}", CheckpointManifest)
            tombstone = read_record(output, f"{folder_of(name)}/{TOMBSTONE}", Tombstone)
        except DataError as error:
            tell(f"skipping checkpoint {name}: {error}")
            continue
        if manifest is not None:
            manifests.append(manifest)
        if tombstone is not None:
            tombstones[name] = tombstone
    return manifests, tombstones


def _names(output: Folder) -> list[str]:
    return [name for name in output.subfolders(CHECKPOINTS) if _NAME.fullmatch(name)]


@dataclass(frozen=True)
class Best:
    """The checkpoint to go on from, first of its line, and its folder on disk."""

    line: Sequence[CheckpointManifest]
    folder: Path


def download_best(output: Folder, scratch: Path, tell: Callable[[str], None]) -> Best | None:
    """Downloads the newest checkpoint on the lineage that verifies, for node 0.

    One whose stored bytes are not those of its manifest gets a tombstone and the one before it is
    taken. Returns nothing where training has to start from step 0.
    """
    manifests, tombstones = read_manifests(output, tell)
    line = lineage(manifests, tombstones)
    for position, manifest in enumerate(line):
        tell(f"downloading checkpoint {manifest.name}")
        try:
            folder = download_checkpoint(output, manifest, scratch, node=0, everything=True)
            return Best(line[position:], folder)
        except DataError as error:
            tell(f"skipping checkpoint {manifest.name}: {error}")
            stone = Tombstone(kind="Corrupt", reason=str(error)[:1000], created_at=now())
            output.write(f"{folder_of(manifest.name)}/{TOMBSTONE}", to_bytes(stone))
    return None


def download_checkpoint(
    output: Folder,
    manifest: CheckpointManifest,
    scratch: Path,
    *,
    node: int,
    everything: bool = False,
) -> Path:
    """Downloads what `node` needs of a checkpoint and verifies it; returns its folder.

    Args:
        output: The run's folder in storage.
        manifest: The checkpoint.
        scratch: Where its folder is made.
        node: Index of this node; it gets the files of node 0 and its own.
        everything: Also verify the files of the other nodes.

    Raises:
        DataError: A file is missing, or its bytes are not those of the manifest.
    """
    target = scratch / f"checkpoint-{manifest.step}"
    shutil.rmtree(target, ignore_errors=True)
    others = scratch / f"others-{manifest.name}"
    own = {file.path for file in manifest.files if file.node == node}

    def place(file: CheckpointFile) -> Path | None:
        if file.node == node or (file.node == 0 and file.path not in own):
            return target / file.path
        return others / file.key if everything else None

    def fetch(file: CheckpointFile) -> None:
        path = place(file)
        if path is not None:
            _download_verified(output, manifest.name, file, path)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(fetch, manifest.files))
    shutil.rmtree(others, ignore_errors=True)
    return target


def _download_verified(output: Folder, name: str, file: CheckpointFile, path: Path) -> None:
    key = f"{folder_of(name)}/{file.key}"
    for last_try in (False, True):  # The second one tells a fault on the way from one at rest.
        digest = download(output, key, path, size=file.size)
        if path.stat().st_size == file.size and digest == file.sha256:
            return
        if last_try:
            raise DataError(
                output.uri_of(key),
                f"its SHA-256 is {digest}, not {file.sha256} as its manifest says",
                "nothing to do: an older checkpoint is used",
            )


def check_whole(uri: str, files: Sequence[InputFile]) -> None:
    """Holds a run's checkpoint that another run reads as a model against its manifest.

    A folder that is not named like a checkpoint passes.

    Args:
        uri: The folder, without a slash at its end.
        files: What was downloaded, of this folder and others.

    Raises:
        DataError: It has no manifest, or a file is not the one that the manifest names.
    """
    if not _NAME.fullmatch(uri.rpartition("/")[2]):
        return
    found = {file.uri.removeprefix(f"{uri}/"): file for file in files}
    if MANIFEST not in found:
        raise DataError(
            uri, f"has no {MANIFEST}, so this checkpoint is not whole", "name another one"
        )
    try:
        manifest = CheckpointManifest.model_validate_json(Path(found[MANIFEST].path).read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{uri}/{MANIFEST}", "is not that of a checkpoint", "name another checkpoint"
        ) from error
    for file in manifest.files:
        present = found.get(file.key)
        if present is None and file.key.endswith(".safetensors"):
            raise DataError(f"{uri}/{file.key}", "it is not there", "name another checkpoint")
        if present is not None and present.sha256 != file.sha256:
            raise DataError(
                present.uri,
                f"its SHA-256 is {present.sha256}, not {file.sha256} as its manifest says",
                "name another checkpoint",
            )


def upload_part(output: Folder, name: str, source: Path, node: int) -> NodeManifest:
    """Uploads the files that this node wrote of a checkpoint, then its node manifest.

    Files of other nodes than 0 lie in a folder of their own, so that equal names do not meet.
    """

    def put(path: Path) -> CheckpointFile:
        relative = path.relative_to(source).as_posix()
        key = relative if node == 0 else f"node-{node}/{relative}"
        size, digest = upload(output, f"{folder_of(name)}/{key}", path)
        return CheckpointFile(path=relative, key=key, node=node, size=size, sha256=digest)

    files = sorted(
        path for path in source.rglob("*") if path.is_file() and not path.name.startswith(".saved-")
    )
    with ThreadPoolExecutor(_PARALLEL) as pool:
        part = NodeManifest(node=node, files=list(pool.map(put, files)))
    output.write(f"{folder_of(name)}/{node_manifest(node)}", to_bytes(part))
    return part


def wait_for_parts(
    output: Folder, name: str, nodes: int, give_up: Callable[[], bool]
) -> list[NodeManifest]:
    """Returns the parts of all nodes as soon as they are there.

    Raises:
        PartsMissingError: `give_up` became true before.
    """
    parts: dict[int, NodeManifest] = {}
    while True:
        for node in set(range(nodes)) - set(parts):
            part = read_record(output, f"{folder_of(name)}/{node_manifest(node)}", NodeManifest)
            if part is not None:
                parts[node] = part
        if len(parts) == nodes:
            return [parts[node] for node in range(nodes)]
        if give_up():
            missing = sorted(set(range(nodes)) - set(parts))
            raise PartsMissingError(
                output.uri_of(folder_of(name)),
                f"the parts of nodes {missing} did not arrive",
                "nothing to do: an older checkpoint is used",
            )
        time.sleep(_POLL_SECONDS)


def publish(output: Folder, manifest: CheckpointManifest) -> None:
    """Writes the manifest, from which on the checkpoint exists.

    Raises:
        StorageError: The checkpoint was published before, with other files.
    """
    key = f"{folder_of(manifest.name)}/{MANIFEST}"
    if output.create(key, to_bytes(manifest)):
        return
    present = read_record(output, key, CheckpointManifest)  # Ours, if an outage ate the answer.
    if present is None or present.files != manifest.files:
        raise StorageError(
            output.uri_of(key),
            "another launcher published this checkpoint",
            "nothing to do: the next attempt goes on from it",
        )


def prune(output: Folder, keep: int) -> list[str]:
    """Deletes all but the `keep` best checkpoints; returns the names of the deleted.

    The manifest goes first: what is left of a deletion that was cut short is no checkpoint.
    """
    doomed = to_delete(*read_manifests(output), keep)
    for name in doomed:
        delete_checkpoint(output, name)
    return doomed


def delete_checkpoint(output: Folder, name: str) -> None:
    """Deletes one checkpoint, its manifest first."""
    output.delete([f"{folder_of(name)}/{MANIFEST}"])
    output.delete([entry.path for entry in output.entries(folder_of(name))])


def delete_torn(output: Folder, before: tuple[int, int]) -> list[str]:
    """Deletes what earlier (attempt, restart) pairs left of checkpoints that never became whole."""
    torn = [
        name
        for name in _names(output)
        if pair_of(name) < before and output.read(f"{folder_of(name)}/{MANIFEST}") is None
    ]
    for name in torn:
        delete_checkpoint(output, name)
    return torn


def pair_of(name: str) -> tuple[int, int]:
    """Returns the (attempt, restart) in a checkpoint's name; `120-a2r0` gives (2, 0)."""
    attempt, _, restart = name.partition("-a")[2].partition("r")
    return int(attempt), int(restart)


def local_checkpoints(out: Path, ranks: Sequence[int], marker: Callable[[int], str]) -> list[Path]:
    """Returns the checkpoints on disk that all local `ranks` have written, by step."""
    whole = [
        folder
        for folder in out.glob("checkpoint-*")
        if folder.name.rpartition("-")[2].isdigit()
        and all((folder / marker(rank)).exists() for rank in ranks)
    ]
    return sorted(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))
