"""The running text of a run's data sets, a document at a time; imports neither torch nor tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import columns, rows
from llmtrain_trainer.data.files import read_rows
from llmtrain_trainer.workdir import InputFile

_COLUMN = "text"


@dataclass(frozen=True)
class Document:
    """One document: where it stands, what it says, whether it is held out for evaluation."""

    place: str
    text: str
    """May be empty."""
    held_out: bool


def documents(files: Sequence[InputFile], spec: RunSpec) -> Iterator[Document]:
    """Yields the documents of all data sets, in their order, holding one at a time.

    Which of them are held out follows from their text alone, unless `evaluation.groupBy` names a
    column: neither other columns nor the kind of file count, and a text that stands twice is on one
    side.

    Args:
        files: The downloaded objects, in the order of `spec.datasets`.
        spec: The run's spec.

    Raises:
        ConfigError: A file's name does not say how it reads.
        DataError: A row has no text, or a file no rows; the message names URI and line.
    """
    for index in range(len(files)):
        yield from of_dataset(files, spec, index)


def of_dataset(files: Sequence[InputFile], spec: RunSpec, index: int) -> Iterator[Document]:
    """Yields the documents of dataset `index`, as `documents` does."""
    empty = True
    dataset = spec.datasets[index]
    for place, raw in itertools.islice(read_rows(files[index], index), dataset.max_samples):
        empty = False
        whole = rows.require_object(place, raw)
        text = columns.text(place, rows.renamed(place, whole, dataset), _COLUMN)
        yield Document(place, text, rows.falls_out(place, whole, spec, {_COLUMN: text}))
    if empty:
        raise rows.no_rows(files[index])
