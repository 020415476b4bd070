"""The rows of a run that measures a model: what the loss falls on, and what is to be answered.

Each process reads all rows and keeps its share of them, so that nothing is exchanged beforehand and
each row is measured once, by one process.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from llmtrain_trainer.data import corpus, rows, texts, tokens
from llmtrain_trainer.data.chat import IGNORED, Encoder, Tokens, refused_row
from llmtrain_trainer.data.rows import Chat, Completion, Row
from llmtrain_trainer.workdir import Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int32]
Key = tuple[int, int, int]
"""The data set, the row in it, and the piece of the row: the order of the results."""

ROWS, MEASURED, DROPPED, TRUNCATED = "rows", "measured", "dropped", "truncated"
UNANSWERED = "unanswered"
"""What is counted of a data set; `UNANSWERED` are rows whose prompt is too long to be answered."""


@dataclass(frozen=True)
class Question:
    """What a model is asked, and the answer that is wanted."""

    prompt: Ids
    wanted: str


@dataclass(frozen=True)
class Measured:
    """A row, or a piece of running text."""

    key: Key
    place: str
    input_ids: Ids
    labels: Ids
    """`input_ids` or `IGNORED`, of the same length."""
    question: Question | None = None


@dataclass
class Share:
    """The rows of one process of `processes`, and what became of them."""

    job: Job
    tokenizer: PreTrainedTokenizerBase
    process: int = 0
    processes: int = 1
    counts: list[Counter[str]] = field(default_factory=list)
    """For each data set."""
    largest_id: int = 0
    """The largest token id; the model must have an embedding for it."""
    turn_end: int | None = None
    """The special token that ends the first answer."""

    def read(self) -> Iterator[Measured]:
        """Yields the rows, in order, once.

        Raises:
            ConfigError: The chat template does not show where an answer begins or ends.
            DataError: A row is malformed.
        """
        for index, dataset in enumerate(self.job.run.spec.datasets):
            self.counts.append(Counter())
            of_text = dataset.format == "Text"
            for each in self._documents(index) if of_text else self._rows(index):
                self.largest_id = max(self.largest_id, int(each.input_ids.max()))
                if each.question is not None and len(each.question.prompt):
                    self.largest_id = max(self.largest_id, int(each.question.prompt.max()))
                yield each

    def _mine(self, of_all: Iterator[Any]) -> Iterator[Any]:
        return itertools.islice(of_all, self.process, None, self.processes)

    def _documents(self, index: int) -> Iterator[Measured]:
        spec, count = self.job.run.spec, self.counts[index]
        documents = self._mine(texts.of_dataset(self.job.dataset_files, spec, index))
        numbers = itertools.count(self.process, self.processes)
        encoded = corpus.encode(self.tokenizer, documents, None)
        for number, (document, ids) in zip(numbers, encoded, strict=False):
            count[ROWS] += 1
            count[MEASURED if len(ids) > 1 else DROPPED] += 1
            for piece, part in enumerate(pieces(ids, spec.max_length)):
                row = np.array(part, np.int32)
                yield Measured((index, number, piece), document.place, row, row)

    def _rows(self, index: int) -> Iterator[Measured]:
        spec = self.job.run.spec
        loss = spec.require_evaluate().loss
        encoder = Encoder(
            self.tokenizer, all_tokens=loss == "AllTokens", last_answer=loss == "LastAnswerOnly"
        )
        source = self._mine(enumerate(rows.read(self.job.dataset_files, spec, index)))
        while batch := list(itertools.islice(source, tokens.ROWS_AT_ONCE)):
            encoded = encoder.encode([row for _, row in batch])
            for (number, row), whole in zip(batch, encoded, strict=True):
                if self.turn_end is None:
                    self.turn_end = tokens.last_special(whole.labels, self.tokenizer)
                measured = self._row(self.counts[index], (index, number, 0), row, whole)
                if measured is not None:
                    yield measured

    def _row(self, count: Counter[str], key: Key, row: Row, whole: Tokens) -> Measured | None:
        """Returns a row within `maxLength`; none where nothing is left to measure."""
        spec = self.job.run.spec
        longest, predict = spec.max_length, spec.require_evaluate().predict
        labels = np.array(whole.labels[:longest], np.int32)
        count[ROWS] += 1
        count[TRUNCATED] += len(whole.labels) > longest
        if not (labels[1:] != IGNORED).any():  # Nothing says what the first token should be.
            count[DROPPED] += 1
            return None
        count[MEASURED] += 1
        question = None
        if predict is not None:
            question = ask(row, self.tokenizer, whole.input_ids)
            if len(question.prompt) > longest:
                question = None
                count[UNANSWERED] += 1
        ids = np.array(whole.input_ids[:longest], np.int32)
        return Measured(key, row.place, ids, labels, question)


def pieces(ids: Sequence[int], longest: int) -> Iterator[Sequence[int]]:
    """Yields a text in pieces, so that each token but the first is predicted once.

    A piece begins with the last token of the one before; a text of one token has no piece.
    """
    for begin in range(0, len(ids) - 1, longest - 1):
        yield ids[begin : begin + longest]


def ask(row: Row, tokenizer: PreTrainedTokenizerBase, whole: Sequence[int]) -> Question:
    """Returns what a model is asked for the last answer of a row.

    Args:
        row: A conversation, or a prompt and its completion.
        tokenizer: The model's.
        whole: The tokens of the row with all its answers.

    Raises:
        DataError: The chat template refuses the row.
    """
    content = row.content
    if isinstance(content, Completion):
        ids = list(tokenizer(content.prompt)["input_ids"])
        if ids[-1:] == [tokenizer.eos_token_id]:  # Some put it after every text.
            ids.pop()
        return Question(np.array(ids or _beginning(tokenizer), np.int32), content.completion)
    if not isinstance(content, Chat):
        raise ValueError(f"{row.place} has no answer to predict")
    *before, last = content.messages
    try:
        text = tokenizer.apply_chat_template(
            before, tools=content.tools, tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError) as error:
        raise refused_row(row, error) from error
    prompt = list(tokenizer(str(text), add_special_tokens=False)["input_ids"])
    wanted = last["content"]
    if last.get("tool_calls"):  # What the template makes of them.
        said = list(whole[len(prompt) :])
        wanted = str(tokenizer.decode(said, skip_special_tokens=True)).strip()
    return Question(np.array(prompt, np.int32), wanted)


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns what stands for an empty prompt: something must come before the first token."""
    begin = tokenizer.bos_token_id
    return [tokenizer.eos_token_id if begin is None else begin]
