"""The end of a run: results, provenance, and last of all the manifest that says it is finished."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llmtrain_api.errors import LLMTrainError
from llmtrain_api.layout import (
    ADAPTER,
    ALL_RESULTS,
    FINAL_MANIFEST,
    LOSS_PLOT,
    MODEL,
    PROVENANCE,
    TENSORBOARD,
)
from llmtrain_api.progress import Artifacts, Resolved
from llmtrain_api.runfile import RunFile, spec_hash
from llmtrain_trainer import owner
from llmtrain_trainer.cgroup import usable_cores
from llmtrain_trainer.hardware import cpu_name
from llmtrain_trainer.inputs import Downloaded
from llmtrain_trainer.progress import merge_logs
from llmtrain_trainer.records import FinalFile, FinalManifest, Start, now, read_record, to_bytes
from llmtrain_trainer.storage import Folder
from llmtrain_trainer.torchrun import environment
from llmtrain_trainer.transfer import upload
from llmtrain_trainer.workdir import DONE

TRAINER_LOG = "results/trainer_log.jsonl"
"""The training log of all attempts, in one file."""
_PACKAGES = (
    *("llmtrain", "torch", "transformers", "trl", "peft", "accelerate", "datasets"),
    *("tokenizers", "safetensors", "numpy", "sacrebleu", "rouge-score", "jieba"),
)
_PARALLEL = 4


def artifacts_of(output: Folder, paths: list[str]) -> Artifacts:
    """Returns where the results are, given the paths of all final files."""

    def folder(name: str) -> str | None:
        """Returns a folder that can be loaded: one with weights, or with a tokenizer alone."""
        loaded = (".safetensors", "tokenizer.json")
        there = any(path.startswith(f"{name}/") and path.endswith(loaded) for path in paths)
        return output.uri_of(f"{name}/") if there else None

    def file(path: str) -> str | None:
        return output.uri_of(path) if path in paths else None

    return Artifacts(
        model=folder(MODEL),
        adapter=folder(ADAPTER),
        loss_plot=file(LOSS_PLOT),
        results=file(ALL_RESULTS),
        logs=output.uri_of("attempts/"),
        tensorboard=output.uri_of(f"{TENSORBOARD}/"),
    )


def add_warnings(final: Path, warnings: Sequence[str]) -> None:
    """Adds what went wrong beside training to `all_results.json` below `final`."""
    if not warnings:
        return
    path = final / ALL_RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    # A command of the user's own need not write any.
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results["warnings"] = [*results.get("warnings", []), *warnings]
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def provenance(
    run: RunFile,
    starts: Sequence[Start],
    inputs: Downloaded,
    resolved: Resolved | None,
    weights: str = "",
) -> dict[str, Any]:
    """Returns what the weights were made of and by, so that they can be made again.

    Args:
        run: The run.
        starts: The records of all attempts, oldest first.
        inputs: What it read.
        resolved: What was chosen where the spec left it open.
        weights: SHA-256 of the trained weights.
    """
    return {
        "formatVersion": 1,
        "name": run.name,
        "namespace": run.namespace,
        "uid": run.uid,
        "specHash": spec_hash(run.spec),
        "spec": run.spec.to_dict(),
        "parents": [parent.to_dict() for parent in run.parents or ()],
        "inputs": [file.model_dump(by_alias=True, exclude={"path"}) for file in inputs.all_files],
        "attempts": [
            start.model_dump(by_alias=True, exclude={"format_version", "launcher"})
            for start in starts
        ],
        "resolved": resolved.to_dict() if resolved else {},
        "weights": {"sha256": weights, "dependOn": _depend_on(run, resolved)},
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "image": os.environ.get("LLMTRAIN_IMAGE", ""),
        "createdAt": now(),
    }


def _depend_on(run: RunFile, resolved: Resolved | None) -> dict[str, Any]:
    """Returns what the hash of the weights follows from beside the spec, inputs and packages.

    On a CPU all of it being the same, the hash is; on a GPU where `deterministic` is set, too.
    """
    workers = run.spec.workers
    variables = environment(os.environ, cores=usable_cores(), processes=workers.processes_per_node)
    training = run.spec.training
    return {
        "device": resolved.device if resolved else None,
        "deterministic": training.deterministic if training else True,
        "nodes": workers.nodes,
        "processesPerNode": workers.processes_per_node,
        "threadsPerProcess": variables["OMP_NUM_THREADS"],
        "cpu": cpu_name(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # Not part of this image, so not part of how the weights came to be.
    return versions


def merged_trainer_log(output: Folder) -> str:
    """Returns the training log of all attempts, from its pieces in storage."""
    parts: dict[str, str] = {}
    for entry in output.entries("metrics"):
        pair, _, _ = entry.path.removeprefix("metrics/trainer_log.").partition(".")
        parts[pair] = parts.get(pair, "") + (output.read(entry.path) or b"").decode()
    in_order = sorted(parts, key=lambda pair: tuple(int(n) for n in pair[1:].split("r")))
    return "".join(f"{line}\n" for line in merge_logs([parts[p].splitlines() for p in in_order]))


def upload_results(
    output: Folder,
    final: Path,
    *,
    run: RunFile,
    start: Start,
    inputs: Downloaded,
    resolved: Resolved | None,
    tell: Callable[[str], None],
) -> list[FinalFile]:
    """Uploads everything below `final`, the training log and the provenance; then the manifest.

    Returns:
        The files, as the manifest names them.

    Raises:
        LLMTrainError: A later attempt has begun, so these results are not wanted any more.
        StorageError: Storage does not take them.
    """
    (final / "results").mkdir(exist_ok=True)
    (final / TRAINER_LOG).write_text(merged_trainer_log(output), encoding="utf-8")
    origin = provenance(run, owner.all_starts(output), inputs, resolved, _hash_of_weights(final))
    (final / PROVENANCE).write_text(json.dumps(origin, indent=2), encoding="utf-8")
    paths = sorted(path for path in final.rglob("*") if path.is_file() and path.name != DONE)

    def put(path: Path) -> FinalFile:
        relative = path.relative_to(final).as_posix()
        _check_newest(output, start)
        tell(f"uploading {relative}")
        size, digest = upload(output, relative, path)
        return FinalFile(path=relative, size=size, sha256=digest)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        files = list(pool.map(put, paths))
    _check_newest(output, start)
    manifest = FinalManifest(
        name=run.name,
        spec_hash=spec_hash(run.spec),
        attempt=start.attempt,
        restart=start.restart,
        created_at=now(),
        files=files,
    )
    _publish(output, manifest)
    return files


def _hash_of_weights(final: Path) -> str:
    path = final / ALL_RESULTS
    if not path.exists():
        return ""
    results = json.loads(path.read_text(encoding="utf-8"))
    return str(results.get("weights_sha256") or results.get("tokenizer_sha256") or "")


def _check_newest(output: Folder, start: Start) -> None:
    if not owner.still_newest(output, start):
        raise LLMTrainError("a later attempt has begun: its results count, not these")


def _publish(output: Folder, manifest: FinalManifest) -> None:
    """Writes the manifest, from which on the run is finished; the first one stays.

    Raises:
        LLMTrainError: Another attempt has finished the run.
    """
    if output.create(FINAL_MANIFEST, to_bytes(manifest)):
        return
    present = read_record(output, FINAL_MANIFEST, FinalManifest)
    if present is not None and present.spec_hash == manifest.spec_hash:
        raise LLMTrainError(
            f"attempt {present.attempt} has finished this run: its results count, not these"
        )
    output.write(FINAL_MANIFEST, to_bytes(manifest))  # In place of another spec's, which is over.
