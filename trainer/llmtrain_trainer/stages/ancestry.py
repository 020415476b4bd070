"""From which data and models a result comes, over all stages: a file beside every model.

A run reads that of what it starts from and adds itself: the last model of a chain names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.runfile import RunFile, spec_hash
from llmtrain_trainer.workdir import InputFile, Job

FILE = "llmtrain-lineage.json"
_SHOWN = (".safetensors", ".bin", "tokenizer.json")
"""Endings of the files whose hashes a card shows; those of all inputs are in `provenance.json`."""


class Read(ApiModel):
    """A data set that a stage read."""

    uri: str
    sha256: str
    rows: int
    """Rows or documents that it was trained on."""


class Ancestor(ApiModel):
    """A run that made what the next one started from."""

    stage: str
    name: str
    """The run's name."""

    spec_hash: str
    source: str = ""
    """URI of the model, or of the tokenizer of a new one; empty for neither."""

    datasets: list[Read] = Field(default=[])
    sha256: str = ""
    """Of the trained weights, or of `tokenizer.json`."""


class Ancestry(ApiModel):
    """The runs, oldest first, the one that made this folder last."""

    format_version: int = 1
    runs: list[Ancestor]


def of_source(job: Job) -> list[Ancestor]:
    """Returns the runs that made what the job starts from; none where nothing says so."""
    path = Path(job.model_path) / FILE
    if not job.model_path or not path.is_file():
        return []
    # A later version may say more.
    return Ancestry.model_validate_json(path.read_bytes(), extra="ignore").runs


def with_run(
    earlier: Sequence[Ancestor], run: RunFile, datasets: Sequence[Any], sha256: str
) -> Ancestry:
    """Returns the runs with `run` added.

    Args:
        earlier: The runs before it.
        run: The run.
        datasets: What it read; each has `uri`, `sha256` and `train`.
        sha256: Of what it made.
    """
    own = Ancestor(
        stage=run.spec.stage,
        name=run.name,
        spec_hash=spec_hash(run.spec),
        source=run.spec.source_uri,
        datasets=[Read(uri=each.uri, sha256=each.sha256, rows=each.train) for each in datasets],
        sha256=sha256,
    )
    return Ancestry(runs=[*earlier, own])


def write(ancestry: Ancestry, folder: Path) -> None:
    """Writes it into the folder of a result."""
    text = ancestry.model_dump_json(by_alias=True, indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def describe(ancestry: Ancestry, files: Sequence[InputFile]) -> str:
    """Returns the section of a card, in Markdown.

    Args:
        ancestry: The runs.
        files: The files of the models and the tokenizer that the last one started from.
    """
    lines = [
        "| stage | run | started from | trained on | SHA-256 of the result |",
        "|---|---|---|---|---|",
    ]
    for run in ancestry.runs:
        data = ", ".join(f"`{each.uri}` ({each.rows} rows)" for each in run.datasets)
        source = f"`{run.source}`" if run.source else ""
        lines.append(f"| {run.stage} | {run.name} | {source} | {data} | `{run.sha256}` |")
    text = "\n".join(lines) + "\n"
    if len(ancestry.runs) == 1 and ancestry.runs[0].source:
        text += f"\n`{ancestry.runs[0].source}` says nothing of how it was made itself.\n"
    shown = [file for file in files if file.uri.endswith(_SHOWN)]
    if shown:
        text += "\n| file it started from | bytes | SHA-256 |\n|---|---|---|\n"
        text += "".join(f"| `{file.uri}` | {file.size} | `{file.sha256}` |\n" for file in shown)
    return text
