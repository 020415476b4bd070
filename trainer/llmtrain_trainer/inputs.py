"""The run's inputs: frozen when the first attempt begins, downloaded once per node, verified.

`inputs.json` holds the ETag of every object. A later attempt reads exactly those objects or ends
with an error that names the one that changed, so a resumed run never mixes two versions.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from llmtrain_api.errors import DataError
from llmtrain_api.layout import INPUTS
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import RunFile
from llmtrain_api.stages.preference import ReferenceModel
from llmtrain_api.stages.pretrain import TokenizerSource
from llmtrain_api.training import Model
from llmtrain_trainer.records import FrozenInput, FrozenInputs, read_record, to_bytes
from llmtrain_trainer.storage import Folder, StoredObject, open_folder
from llmtrain_trainer.transfer import Tell, download
from llmtrain_trainer.workdir import InputFile

_PARALLEL = 16
_LARGE = 64 * 1024 * 1024  # From this size on, one object at a time fills the line.
_NO_TOKENIZER = ("README.md", "generation_config.json", "manifest.json", "llmtrain-lineage.json")
_OTHER_WEIGHTS = (".bin", ".h5", ".msgpack", ".ckpt.index", ".gguf", ".onnx", ".pt", ".pth", ".ot")


@dataclass(frozen=True)
class Downloaded:
    """The inputs on this node's disk."""

    model: Path | None
    """Folder of the model, or of the tokenizer of a new one; none for stage Tokenizer."""

    reference: Path | None
    """Folder of the reference model, where one is named."""

    model_files: list[InputFile]
    """The files of all these folders."""

    dataset_files: list[InputFile]

    adapter: Path | None = None
    """Folder of the adapter, where one is named."""

    @property
    def tokenizer_files(self) -> list[InputFile]:
        """The files of the model that tokens may follow from: all but its weights and its card."""
        others = (".safetensors", ".safetensors.index.json", *_OTHER_WEIGHTS, *_NO_TOKENIZER)
        own = [file for file in self.model_files if Path(file.path).parent == self.model]
        return [file for file in own if not file.path.endswith(others)]

    @property
    def all_files(self) -> list[InputFile]:
        """Every downloaded object, the models' first."""
        return [*self.model_files, *self.dataset_files]


def model_folders(spec: RunSpec) -> dict[str, str]:
    """Returns the URI of each folder that a run reads as a whole, by the field that names it."""
    found: dict[str, Model | TokenizerSource | ReferenceModel | None] = {
        "model.uri": spec.model,
        "tokenizer.uri": spec.tokenizer,
    }
    for name, stage in (("dpo", spec.dpo), ("kto", spec.kto)):
        if stage is not None:
            found[f"{name}.referenceModel.uri"] = stage.reference_model
    folders = {
        field: named.uri.rstrip("/")
        for field, named in found.items()
        if named is not None and named.uri is not None  # A run file names no other runs.
    }
    if spec.model is not None and spec.model.adapter_uri is not None:
        folders["model.adapterUri"] = spec.model.adapter_uri.rstrip("/")
    return folders


def list_inputs(run: RunFile) -> FrozenInputs:
    """Returns every object that the run reads, as storage holds it now.

    Raises:
        ConfigError: A bucket is missing or may not be read.
        DataError: A data set or the model is not there.
    """
    found: list[FrozenInput] = []
    for field, uri in model_folders(run.spec).items():
        model = open_folder(uri, run.spec.storage, field=field)
        entries = needed_files(model.entries(), weights=field != "tokenizer.uri")
        if not entries:
            raise DataError(
                f"{model.uri}/",
                "the model folder is empty",
                f"upload the model or correct {field}",
            )
        found += [each for entry in entries if (each := _frozen(model, entry)) not in found]
    for index in range(len(run.spec.datasets)):
        found += [each for each in _list_dataset(run, index) if each not in found]
    return FrozenInputs(inputs=found)


def _list_dataset(run: RunFile, index: int) -> list[FrozenInput]:
    """Returns the object of a data set, or all those of a folder."""
    folder, name = _dataset_place(run, index)
    if name:
        entry = folder.head(name)
        entries = [entry] if entry is not None else []
    else:
        entries = [entry for entry in folder.entries() if entry.path]
    if not entries:
        raise DataError(
            folder.uri_of(name) if name else f"{folder.uri}/",
            "there is no such object" if name else "the folder is empty",
            f"upload {'it' if name else 'objects'} or correct datasets[{index}].uri",
        )
    return [_frozen(folder, entry) for entry in entries]


def _frozen(folder: Folder, entry: StoredObject) -> FrozenInput:
    return FrozenInput(uri=folder.uri_of(entry.path), size=entry.size, etag=entry.etag)


def _dataset_place(run: RunFile, index: int) -> tuple[Folder, str]:
    """Returns the folder that holds a data set's object, and the object's name in it.

    The name is empty where the data set is the folder.
    """
    parent, _, name = run.spec.datasets[index].uri.rpartition("/")
    folder = open_folder(parent, run.spec.storage, field=f"datasets[{index}].uri")
    return folder, name


def needed_files(entries: Sequence[StoredObject], *, weights: bool = True) -> list[StoredObject]:
    """Returns the files of a model folder that loading it needs.

    Those are the ones at its top; where it holds safetensors, the same weights in other formats are
    left out, and without `weights` all of them are.
    """
    top = [entry for entry in entries if "/" not in entry.path and entry.path]
    if not weights:
        return [e for e in top if not e.path.endswith((".safetensors", *_OTHER_WEIGHTS))]
    if not any(entry.path.endswith(".safetensors") for entry in top):
        return top
    return [entry for entry in top if not entry.path.endswith(_OTHER_WEIGHTS)]


def freeze(output: Folder, run: RunFile) -> FrozenInputs:
    """Returns the inputs that the run is bound to; the first attempt binds it.

    Raises:
        DataError: An input changed or vanished since the first attempt.
    """
    frozen = read_record(output, INPUTS, FrozenInputs)
    present = list_inputs(run)
    if frozen is None:
        output.create(INPUTS, to_bytes(present))
        return read_record(output, INPUTS, FrozenInputs) or present
    compare(frozen, present)
    return frozen


def compare(frozen: FrozenInputs, present: FrozenInputs) -> None:
    """Checks that the inputs are still those that the run began with; new files do not count.

    Raises:
        DataError: One is not; the message names it.
    """
    now = {each.uri: each for each in present.inputs}
    for each in frozen.inputs:
        if each != now.get(each.uri):
            raise DataError(
                each.uri,
                "it changed since the run began" if each.uri in now else "it is no longer there",
                "put back the object that the run began with, or give the run another output.uri",
            )


def fetch(
    run: RunFile,
    frozen: FrozenInputs,
    scratch: Path,
    tell: Callable[[str], None],
    *,
    weights: bool = True,
) -> Downloaded:
    """Downloads the frozen inputs into `scratch`; what is there from before is not fetched again.

    Args:
        run: The run.
        frozen: Its inputs.
        scratch: Folder for them; one sub-folder for each version of an input.
        tell: Is told what is being done, such as `downloading s3://models/x (120/269 MB)`.
        weights: Also those of the models, and reference models.

    Raises:
        DataError: An input changed since it was frozen.
    """
    paths: dict[str, Path] = {}
    model_files: list[InputFile] = []
    for field, uri in model_folders(run.spec).items():
        if not weights and "referenceModel" in field:
            continue
        wanted = frozen if weights else _without_weights(frozen)
        paths[field], files = _fetch_folder(run, wanted, (field, uri), scratch, tell)
        model_files += [file for file in files if file not in model_files]
    dataset_files: list[InputFile] = []
    for index in range(len(run.spec.datasets)):
        dataset_files += _fetch_dataset(run, frozen, index, scratch, tell)
    model = paths.get("model.uri") or paths.get("tokenizer.uri")
    reference = paths.get("dpo.referenceModel.uri") or paths.get("kto.referenceModel.uri")
    adapter = paths.get("model.adapterUri")
    return Downloaded(model, reference, model_files, dataset_files, adapter)


def _without_weights(frozen: FrozenInputs) -> FrozenInputs:
    others = (".safetensors", *_OTHER_WEIGHTS)
    return FrozenInputs(inputs=[each for each in frozen.inputs if not each.uri.endswith(others)])


def _fetch_folder(
    run: RunFile,
    frozen: FrozenInputs,
    source: tuple[str, str],
    scratch: Path,
    tell: Callable[[str], None],
) -> tuple[Path, list[InputFile]]:
    """Downloads the files of one model folder, given its field and URI; returns where they are."""
    field, uri = source
    datasets = {dataset.uri for dataset in run.spec.datasets}
    entries = [
        each
        for each in frozen.inputs
        if each.uri.rpartition("/")[0] == uri and each.uri not in datasets
    ]
    version = hashlib.sha256("".join(each.etag for each in entries).encode()).hexdigest()[:16]
    path = scratch / f"model-{version}"
    folder = open_folder(uri, run.spec.storage, field=field)
    targets = [path / each.uri.removeprefix(f"{uri}/") for each in entries]
    return path, _fetch_all(folder, entries, targets, _words(uri, entries, tell))


def _fetch_dataset(
    run: RunFile, frozen: FrozenInputs, index: int, scratch: Path, tell: Callable[[str], None]
) -> list[InputFile]:
    """Downloads a data set: its object, or all those of a folder."""
    uri = run.spec.datasets[index].uri
    folder, name = _dataset_place(run, index)
    if name:
        entries = [next(each for each in frozen.inputs if each.uri == uri)]
    else:
        entries = [each for each in frozen.inputs if each.uri.startswith(uri)]
    etags = " ".join(each.etag for each in entries)
    version = hashlib.sha256(f"{uri} {etags}".encode()).hexdigest()[:16]
    root = scratch / f"data-{version}"
    targets = [root / each.uri.removeprefix(f"{folder.uri}/") for each in entries]
    return _fetch_all(folder, entries, targets, _words(uri, entries, tell))


def _fetch_all(
    folder: Folder, entries: list[FrozenInput], targets: list[Path], tell: Tell
) -> list[InputFile]:
    """Downloads small objects side by side, then large ones one after the other."""

    def fetch_one(entry: FrozenInput, target: Path) -> InputFile:
        note = target.parent.with_name(f"{target.parent.name}.hashes") / target.name
        if target.exists() and target.stat().st_size == entry.size and note.exists():
            digest = note.read_text(encoding="utf-8")
        else:
            path = entry.uri.removeprefix(f"{folder.uri}/")
            digest = download(folder, path, target, size=entry.size, etag=entry.etag, tell=tell)
            note.parent.mkdir(exist_ok=True)
            note.write_text(digest, encoding="utf-8")
        return InputFile(
            uri=entry.uri, path=str(target), size=entry.size, etag=entry.etag, sha256=digest
        )

    pairs = list(zip(entries, targets, strict=True))
    with ThreadPoolExecutor(_PARALLEL) as pool:
        small = {e.uri: pool.submit(fetch_one, e, t) for e, t in pairs if e.size < _LARGE}
        done = {uri: future.result() for uri, future in small.items()}
    return [done.get(entry.uri) or fetch_one(entry, target) for entry, target in pairs]


def _words(uri: str, entries: list[FrozenInput], tell: Callable[[str], None]) -> Tell:
    """Returns a `Tell` that says how far the download of `uri` is."""
    total = sum(each.size for each in entries)
    lock = threading.Lock()
    done = 0

    def told(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            megabytes = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB"
        tell(f"downloading {uri} ({megabytes})")

    return told
