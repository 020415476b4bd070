"""The name of prepared tokens: a hash of everything that they follow from, and of nothing else.

Two jobs of one name would write the same tokens, so that one of them can use those of the other:
on a laptop or in a cluster, in another attempt, from a copy of the data at another URI, with other
weights of the same tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from llmtrain_api.base import ApiModel
from llmtrain_api.datasets import Dataset
from llmtrain_api.run import RunSpec
from llmtrain_api.stages.pretrain import Pretrain
from llmtrain_api.stages.sft import SFT
from llmtrain_trainer.workdir import Job

_LIBRARIES = ("tokenizers", "transformers", "jinja2")
_MEASURING = (
    "everySteps",
    "atStart",
    "batchSize",
    "metricForBestModel",
    "earlyStoppingPatience",
    "loadBestModelAtEnd",
)
"""The fields of `evaluation` that do not say which rows are held out."""


def of(job: Job) -> str:
    """Returns the name of a job's tokens, as 64 hex digits."""
    parts = {
        "code": _code(),
        "tokenizer": sorted((Path(f.path).name, f.sha256) for f in job.tokenizer_files),
        "data": [file.sha256 for file in job.dataset_files],
        "spec": _of_spec(job.run.spec),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_spec(spec: RunSpec) -> dict[str, Any]:
    """Returns what of a spec counts: all of some blocks but what is known to change no token."""
    running_text = spec.stage == "Pretrain"
    return {
        "stage": spec.stage,
        "datasets": [_of_dataset(dataset) for dataset in spec.datasets],
        "evaluation": _but(spec.evaluation, *_MEASURING),
        "sft": _but(spec.sft or SFT(), "packing"),
        "pretrain": _but(spec.pretrain or Pretrain(), "isolateDocuments"),
        # Running text is cut where it is read.
        "length": None if running_text else spec.require_training().max_length,
    }


def _of_dataset(dataset: Dataset) -> dict[str, Any]:
    """Returns how a data set reads; where it lies does not count, nor how often it is taken."""
    kind = "".join(PurePosixPath(dataset.uri).suffixes[-2:])
    return {**_but(dataset, "uri", "weight"), "kind": kind}


def _but(block: ApiModel | None, *fields: str) -> dict[str, Any]:
    fields_set = block.to_dict() if block is not None else {}
    return {name: value for name, value in fields_set.items() if name not in fields}


@cache
def _code() -> str:
    """Returns a digest of the code that makes tokens: this folder, and the libraries it uses."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}".encode())
    return digest.hexdigest()
