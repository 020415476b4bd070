"""Rows of preferences as token ids: prompts apart from their answers, or conversations as a whole.

Texts are rendered and cut as TRL does it, so that a run here and a script of TRL train the same
ids: an answer begins where the tokens of the prompt alone and those of prompt and answer differ.
What does not fit into `training.maxLength` is counted, which TRL does not do.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from llmtrain_api.errors import ConfigError
from llmtrain_trainer.data import rows, tokens
from llmtrain_trainer.data.chat import refused_row
from llmtrain_trainer.data.rows import Judged, Message, Pair, Row
from llmtrain_trainer.data.tokens import ROWS_AT_ONCE, Account, DatasetAccount, Encoded
from llmtrain_trainer.workdir import Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Ids = list[int]


class Encoder:
    """Turns prompts and answers into token ids with one model's tokenizer.

    Args:
        tokenizer: The model's tokenizer; one without a chat template can read texts only.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.moved = 0
        """Rows in which the end of the prompt is encoded in another way once an answer follows."""

    def answers(self, batch: Sequence[Row]) -> list[tuple[Ids, list[Ids]]]:
        """Returns the prompt of each row and what its answers add to it, the chosen one first.

        Raises:
            ConfigError: The tokenizer lacks a chat template or an end-of-sequence token.
            DataError: The chat template refuses a row.
        """
        encoded = []
        for prompt, *whole in self._encode(batch, prompts=True):
            common = min(_common(prompt, ids) for ids in whole)
            self.moved += common < len(prompt)
            encoded.append((prompt[:common], [ids[common:] for ids in whole]))
        return encoded

    def conversations(self, batch: Sequence[Row]) -> list[list[Ids]]:
        """Returns the prompt with each answer, as a whole, the chosen one first.

        Raises:
            ConfigError: The tokenizer lacks a chat template or an end-of-sequence token.
            DataError: The chat template refuses a row.
        """
        return self._encode(batch, prompts=False)

    def _encode(self, batch: Sequence[Row], *, prompts: bool) -> list[list[Ids]]:
        """Returns the ids of each row's texts; with `prompts` the prompt alone comes first."""
        texts = [self._texts(row)[0 if prompts else 1 :] for row in batch]
        encoded: list[list[Ids]] = [[] for _ in batch]
        for chat in (False, True):
            chosen = [
                (number, text)
                for number, row in enumerate(batch)
                if isinstance(_content(row).prompt, list) is chat
                for text in texts[number]
            ]
            if not chosen:
                continue
            # A template writes the tokens that begin and end a text; to plain text they are added.
            found = self._tokenizer([text for _, text in chosen], add_special_tokens=not chat)
            for (number, _), ids in zip(chosen, found["input_ids"], strict=True):
                encoded[number].append(list(ids))
        return encoded

    def _texts(self, row: Row) -> list[str]:
        """Returns the row's prompt, and the prompt with each of its answers."""
        prompt, answers = _content(row).prompt, _content(row).answers
        if isinstance(prompt, list):
            whole = [self._render(row, [*prompt, *answer]) for answer in answers]
            return [self._render(row, prompt, answer_next=True), *whole]
        end = self._tokenizer.eos_token
        if end is None:
            raise ConfigError(
                "model.uri",
                "its tokenizer has no end-of-sequence token, so no answer could end",
                "set eos_token in the model's tokenizer_config.json",
            )
        texts = [str(answer) for answer in answers]
        ended = [text if text.endswith(end) else text + end for text in texts]
        return [prompt, *(prompt + text for text in ended)]

    def _render(self, row: Row, messages: list[Message], *, answer_next: bool = False) -> str:
        if self._tokenizer.chat_template is None:
            raise ConfigError(
                "model.uri",
                f"its tokenizer has no chat template, and {row.place} has messages, which are"
                " rendered by one",
                "use an instruction model, add a chat_template.jinja to the model's folder, or"
                " write prompts and answers as strings",
            )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=answer_next
            )
        except (TemplateError, TypeError) as error:
            raise refused_row(row, error) from error
        return str(text)


def prepare_answers(job: Job, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Account:
    """Writes the rows of DPO or KTO to `folder`, unless they are there already.

    Columns: `prompt_ids`, and `chosen_ids` and `rejected_ids`, or `completion_ids` and `label`.
    An answer is cut at the end where it passes `training.maxLength` with its prompt; a row whose
    prompt leaves no room for a token is dropped.

    Returns:
        What became of the rows.

    Raises:
        ConfigError: The tokenizer does not suit the rows, or no row is left.
        DataError: A row is malformed.
    """
    judged = job.run.spec.stage == "KTO"
    names = ("completion_ids",) if judged else ("chosen_ids", "rejected_ids")
    encoder = Encoder(tokenizer)

    def add(row: Row, encoded: tuple[Ids, list[Ids]], account: Account, index: int) -> Any:
        prompt, answers = encoded
        counts = account.datasets[index]
        room = max(job.run.spec.require_training().max_length - len(prompt), 0)
        counts.truncated += any(len(answer) > room for answer in answers)
        if not room:
            counts.dropped += 1
            return None
        if account.turn_end is None:  # A row that was cut ends in the middle of a turn.
            account.turn_end = tokens.last_special(answers[0], tokenizer)
        kept = [answer[:room] for answer in answers]
        account.largest_id = max(account.largest_id, *prompt, *itertools.chain(*kept))
        trained = sum(len(answer) for answer in kept)
        _count(counts, row, len(kept) * len(prompt) + trained, trained)
        columns: dict[str, Any] = {"prompt_ids": prompt, **dict(zip(names, kept, strict=True))}
        if isinstance(row.content, Judged):
            columns["label"] = row.content.good
        return columns

    account = tokens.write(
        job,
        folder,
        lambda account: _encode_all(job, account, encoder.answers, add),
        ids=("prompt_ids", *names),
        flags=("label",) if judged else (),
    )
    if encoder.moved:
        logger.warning(
            "in %d rows the end of the prompt is encoded in another way once an answer follows; the"
            " answer begins there. Let prompts end where a token ends, such as before a blank",
            encoder.moved,
        )
    return account


def prepare_conversations(job: Job, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Account:
    """Writes the rows of Reward to `folder`, unless they are there already.

    Columns: `chosen_ids` and `rejected_ids`, each with the prompt before it. A pair is dropped when
    one of them is longer than `training.maxLength`, as TRL does it: cut, it would lose the end that
    the reward is read from.

    Returns:
        What became of the rows.

    Raises:
        ConfigError: The tokenizer does not suit the rows, or no row is left.
        DataError: A row is malformed.
    """
    max_length = job.run.spec.require_training().max_length

    def add(row: Row, pair: list[Ids], account: Account, index: int) -> Any:
        counts = account.datasets[index]
        if any(len(ids) > max_length for ids in pair):
            counts.dropped += 1
            return None
        account.largest_id = max(account.largest_id, *itertools.chain(*pair))
        _count(counts, row, sum(len(ids) for ids in pair), len(pair))
        return {"chosen_ids": pair[0], "rejected_ids": pair[1]}

    encoder = Encoder(tokenizer)
    return tokens.write(
        job,
        folder,
        lambda account: _encode_all(job, account, encoder.conversations, add),
        ids=("chosen_ids", "rejected_ids"),
    )


def _encode_all(
    job: Job,
    account: Account,
    encode: Callable[[Sequence[Row]], Sequence[Any]],
    add: Callable[[Row, Any, Account, int], Any],
) -> Iterator[Encoded]:
    """Yields the columns of every row that `add` does not drop."""
    for index in range(len(job.dataset_files)):
        source = rows.read(job.dataset_files, job.run.spec, index)
        while batch := list(itertools.islice(source, ROWS_AT_ONCE)):
            for row, encoded in zip(batch, encode(batch), strict=True):
                account.datasets[index].rows += 1
                columns = add(row, encoded, account, index)
                if columns is not None:
                    yield row.held_out, columns


def _count(account: DatasetAccount, row: Row, all_tokens: int, trained: int) -> None:
    if row.held_out:
        account.evaluation += 1
        return
    account.train += 1
    account.tokens += all_tokens
    account.trained_tokens += trained


def _common(ids: Ids, other: Ids) -> int:
    """Returns how many ids two sequences have in common at their beginning."""
    pairs = enumerate(zip(ids, other, strict=False))
    return next((n for n, (one, two) in pairs if one != two), min(len(ids), len(other)))


def _content(row: Row) -> Pair | Judged:
    if not isinstance(row.content, Pair | Judged):
        raise TypeError(f"{row.place} holds no preference")
    return row.content
