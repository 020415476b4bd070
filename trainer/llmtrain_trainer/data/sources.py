"""The rows of a data set, whatever it holds; imports neither torch nor a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import rows, texts
from llmtrain_trainer.data.rows import Row
from llmtrain_trainer.data.texts import Document
from llmtrain_trainer.workdir import InputFile


def read(files: Sequence[InputFile], spec: RunSpec, index: int) -> Iterator[Row | Document]:
    """Yields the rows of dataset `index`, or its documents where it is running text.

    Raises:
        ConfigError: The object's name does not say how it reads.
        DataError: A row is malformed, or there is none.
    """
    if spec.datasets[index].format == "Text":
        yield from texts.of_dataset(files, spec, index)
    else:
        yield from rows.read(files, spec, index)
