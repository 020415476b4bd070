"""From documents to the token streams of a run: one to train on, one held out; imports no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_api.stages.pretrain import Pretrain
from llmtrain_trainer.cgroup import usable_cores
from llmtrain_trainer.data import texts, tokens
from llmtrain_trainer.data.stream import Stream, StreamWriter
from llmtrain_trainer.data.texts import Document
from llmtrain_trainer.data.tokens import Account, DatasetAccount
from llmtrain_trainer.workdir import Job

TRAIN = "train"
"""The name of the stream that is trained on."""
HELD_OUT = "evaluation"
"""The name of the stream that is held out."""

_CHARACTERS_OF_A_CORE = 75_000  # Enough to keep it busy; the library takes 100 bytes a token.
_BATCHES_AT_ONCE = 2  # The next one is encoded while the last one is written.
_DOCUMENTS_AT_ONCE = 4096


def prepare(job: Job, tokenizer: Any, folder: Path) -> Account:
    """Writes the streams of all documents to `folder`, unless they are there already.

    Returns:
        What became of the documents.

    Raises:
        ConfigError: The tokenizer does not work for pretraining.
        DataError: A document is malformed, or none is left.
    """
    spec = job.run.spec
    end = _end_token(tokenizer, spec)
    vocabulary = max(tokenizer.get_vocab().values()) + 1

    def fill(account: Account) -> None:
        with (
            StreamWriter(folder, TRAIN, vocabulary) as train,
            StreamWriter(folder, HELD_OUT, vocabulary) as held_out,
        ):
            for index, dataset in enumerate(account.datasets):
                documents = texts.of_dataset(job.dataset_files, spec, index)
                for document, ids in encode(tokenizer, documents, end):
                    (held_out if document.held_out else train).add(ids)
                    _count(dataset, document, len(ids))
        _check_left(account, spec)
        streams = [Stream(folder, name) for name in (TRAIN, HELD_OUT)]
        _check_targets(account, *(len(stream.tokens) for stream in streams))
        account.largest_id = max(stream.kind.largest_id for stream in streams)

    return tokens.once(job, folder, fill)


def encode(
    tokenizer: Any,
    documents: Iterable[Document],
    end: int | None,
    *,
    characters_at_once: int | None = None,
) -> Iterator[tuple[Document, list[int]]]:
    """Yields each document with its tokens, in order; one without any text has none.

    Args:
        tokenizer: A fast tokenizer of transformers; it adds the special tokens that it adds to any
            text, such as the one that begins it. Loses the truncation and padding saved with it.
        documents: The documents.
        end: Token that every document ends with, unless the tokenizer has put it there; or none.
        characters_at_once: Characters of a batch, of which two are held; a document that has more
            is a batch of its own. Default: what keeps all cores busy.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # tokenizer.json may hold both; documents are taken as they are.
    backend.no_padding()
    encode_batch = backend.encode_batch_fast  # Lets other threads run.
    characters = characters_at_once or _CHARACTERS_OF_A_CORE * usable_cores()
    waiting: deque[tuple[list[Document], Future[list[Any]]]] = deque()

    def first_of_those_waiting() -> Iterator[tuple[Document, list[int]]]:
        batch, encodings = waiting.popleft()
        for document, encoding in zip(batch, encodings.result(), strict=True):
            ids: list[int] = encoding.ids if document.text else []
            if ids and end is not None and ids[-1] != end:
                ids.append(end)
            yield document, ids

    with ThreadPoolExecutor(_BATCHES_AT_ONCE) as pool:
        for batch in _batches(documents, characters):
            waiting.append((batch, pool.submit(encode_batch, [each.text for each in batch])))
            if len(waiting) == _BATCHES_AT_ONCE:
                yield from first_of_those_waiting()
        while waiting:
            yield from first_of_those_waiting()


def _batches(documents: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """Yields documents in their order, as many at once as have `characters` in all."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        if batch and (size + len(document.text) > characters or len(batch) == _DOCUMENTS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.text)
    if batch:
        yield batch


def _end_token(tokenizer: Any, spec: RunSpec) -> int | None:
    """Returns the token that every document ends with, or none."""
    if not tokenizer.is_fast:
        raise ConfigError(
            "tokenizer.uri" if spec.model is None else "model.uri",
            f"its tokenizer {type(tokenizer).__name__} is not one of the library `tokenizers`",
            "save it as tokenizer.json",
        )
    if not (spec.pretrain or Pretrain()).append_eos_token:
        return None
    end: int | None = tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            "pretrain.appendEosToken",
            f"the tokenizer of {spec.source_uri} has no end-of-sequence token",
            "name its `eos_token` in tokenizer_config.json, or set appendEosToken: false",
        )
    return end


def _count(account: DatasetAccount, document: Document, length: int) -> None:
    account.rows += 1
    if not length:
        account.dropped += 1
    elif document.held_out:
        account.evaluation += 1
    else:
        account.train += 1
        account.tokens += length
        account.trained_tokens += length


def _check_left(account: Account, spec: RunSpec) -> None:
    if account.total("train") and (account.total("evaluation") or spec.evaluation is None):
        return
    raise DataError(
        _places(account),
        f"of {account.total('rows')} documents {account.total('dropped')} have no text, which"
        f" leaves {account.total('train')} to train on and {account.total('evaluation')} held out",
        "add documents, or correct evaluation.fraction",
    )


def _check_targets(account: Account, train: int, held_out: int) -> None:
    """Refuses a stream of one token, which says nothing about a next one; an empty one may be."""
    for tokens_there, side in ((train, "to train on"), (held_out, "held out")):
        if tokens_there == 1:
            raise DataError(
                _places(account),
                f"the documents {side} are one token in all, and none follows it",
                "add documents",
            )


def _places(account: Account) -> str:
    return ", ".join(dataset.uri for dataset in account.datasets[:3])
