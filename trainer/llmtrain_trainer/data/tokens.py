"""The rows of a run as token ids on disk, with an account of what happened to every row.

One process of one node writes the files, the others wait for them: `datasets` maps them into
memory, so that a node holds them once whatever its number of processes. They are a function of the
data, the tokenizer and the spec, by which `tokenkey` names them; the launcher keeps them in storage
for other nodes and later runs.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from llmtrain_api.errors import DataError
from llmtrain_api.stages.sft import SFT
from llmtrain_trainer.data import rows, tokenkey
from llmtrain_trainer.data.chat import IGNORED, Encoder, Tokens
from llmtrain_trainer.data.rows import Row
from llmtrain_trainer.workdir import ACCOUNT, Job, say, write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encoded = tuple[bool, Mapping[str, Any]]
"""Whether a row is held out, and its value in each column."""

ROWS_AT_ONCE = 1000  # Enough to keep the tokenizer's threads busy, little to hold.
_POLL_SECONDS = 0.2
_TELL_SECONDS = 2.0


class DatasetAccount(BaseModel):
    """What became of the rows of one dataset."""

    uri: str
    sha256: str
    rows: int = 0
    """Rows read."""
    train: int = 0
    """Rows trained on."""
    evaluation: int = 0
    """Rows held out."""
    dropped: int = 0
    """Rows left out, because no trained token is within `maxLength`; with stage Reward, because an
    answer is longer."""
    truncated: int = 0
    """Rows cut at `maxLength`, those dropped included."""
    tokens: int = 0
    """Tokens of the rows trained on."""
    trained_tokens: int = 0
    """Those of them that the loss falls on."""


class Account(BaseModel):
    """What became of the rows of a run."""

    key: str
    """A digest of all that the tokens follow from."""
    datasets: list[DatasetAccount]
    largest_id: int = 0
    """The largest token id; the model must have an embedding for it."""
    turn_end: int | None = None
    """The special token that ended the first answer, as an id."""

    def total(self, name: str) -> int:
        """Returns one of the counts, summed over all datasets."""
        return sum(getattr(dataset, name) for dataset in self.datasets)

    def summary(self) -> str:
        """Returns all counts in a line for people."""
        names = DatasetAccount.model_fields.keys() - {"uri", "sha256"}
        ordered = [name for name in DatasetAccount.model_fields if name in names]
        return ", ".join(f"{self.total(name)} {name.replace('_', ' ')}" for name in ordered)


class Prepared:
    """The files that `prepare` left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def train(self) -> Path:
        """The rows to train on, as an Arrow stream of token ids; the columns are the stage's."""
        return self.folder / "train.arrow"

    @property
    def evaluation(self) -> Path:
        """The rows held out, in the same form."""
        return self.folder / "evaluation.arrow"

    def account(self) -> Account | None:
        """Returns the account of the rows, or none while they are not all written."""
        path = self.folder / ACCOUNT
        return Account.model_validate_json(path.read_bytes()) if path.is_file() else None

    def account_of(self, job: Job) -> Account | None:
        """Returns the account if it is that of a job's rows, under the names that they have there.

        Another run may have written it, whose data lay elsewhere.
        """
        account = self.account()
        if account is None or account.key != tokenkey.of(job):
            return None
        for dataset, file in zip(account.datasets, job.dataset_files, strict=True):
            dataset.uri = file.uri
        return account


def prepare(job: Job, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Account:
    """Writes `input_ids` and `labels` of all rows to `folder`, unless they are there already.

    Returns:
        What became of the rows.

    Raises:
        ConfigError: The chat template does not work for training, or no row is left.
        DataError: A row is malformed.
    """

    def encode(account: Account) -> Iterator[Encoded]:
        loss = (job.run.spec.sft or SFT()).loss
        encoder = Encoder(
            tokenizer, all_tokens=loss == "AllTokens", last_answer=loss == "LastAnswerOnly"
        )
        for index in range(len(job.dataset_files)):
            for row, whole, tokens in _encode(job, index, encoder, account.datasets[index]):
                account.largest_id = max(account.largest_id, *tokens.input_ids)
                if account.turn_end is None:  # A row that was cut ends in the middle of a turn.
                    account.turn_end = last_special(whole.labels, tokenizer)
                yield row.held_out, vars(tokens)

    return write(job, folder, encode, ids=("input_ids", "labels"))


def write(
    job: Job,
    folder: Path,
    encode: Callable[[Account], Iterator[Encoded]],
    *,
    ids: Sequence[str],
    flags: Sequence[str] = (),
) -> Account:
    """Writes what `encode` yields to `folder`, unless it is there already.

    Args:
        job: What to do.
        folder: Gets the files of `Prepared`; what stands there of another job is deleted.
        encode: Yields every row to train on or to hold out, and counts what happens in the account.
        ids: Columns of token ids.
        flags: Columns that are true or false.

    Returns:
        What became of the rows.

    Raises:
        DataError: No row is left.
    """

    def fill(account: Account) -> None:
        prepared = Prepared(folder)
        with (
            ArrowFile(prepared.train, ids, flags) as train,
            ArrowFile(prepared.evaluation, ids, flags) as evaluation,
        ):
            for held_out, columns in encode(account):
                (evaluation if held_out else train).add(columns)
        _check_left(account, job)

    return once(job, folder, fill)


def once(job: Job, folder: Path, fill: Callable[[Account], None]) -> Account:
    """Lets `fill` write the tokens of a job to `folder`, unless they are there already.

    Args:
        job: What to do. Where another node makes the tokens, this one waits for them.
        folder: In the working folder. What stands there of another job is deleted.
        fill: Writes the files and counts what happens in the account that it is given.
    """
    if not job.makes_tokens:
        return wait_for(job, folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = Prepared(folder).account_of(job)
    if known is not None:
        return known
    for stale in folder.iterdir():
        stale.unlink()
    account = Account(
        key=tokenkey.of(job),
        datasets=[DatasetAccount(uri=file.uri, sha256=file.sha256) for file in job.dataset_files],
    )
    with _telling(account, folder.parent):
        fill(account)
    write_atomically(folder / ACCOUNT, account.model_dump_json(indent=1))
    return account


@contextmanager
def _telling(account: Account, workdir: Path) -> Iterator[None]:
    """Tells the launcher every few seconds how many rows there are so far."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_TELL_SECONDS):
            rows_, count = account.total("rows"), account.total("tokens")
            say(
                workdir,
                "Preparing",
                f"turning rows into tokens ({rows_:,} rows, {count:,} tokens so far)",
            )

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def wait_for(job: Job, folder: Path) -> Account:
    """Waits until the tokens of a job are in `folder`.

    Another process of this node makes them, or the launcher brings them from another node; both end
    us where they cannot.
    """
    while (account := Prepared(folder).account_of(job)) is None:
        time.sleep(_POLL_SECONDS)
    return account


def _encode(
    job: Job, index: int, encoder: Encoder, account: DatasetAccount
) -> Iterator[tuple[Row, Tokens, Tokens]]:
    """Yields each row of dataset `index` with its tokens, whole and cut; counts what happens."""
    max_length = job.run.spec.require_training().max_length
    source = rows.read(job.dataset_files, job.run.spec, index)
    while batch := list(itertools.islice(source, ROWS_AT_ONCE)):
        for row, whole in zip(batch, encoder.encode(batch), strict=True):
            tokens = Tokens(whole.input_ids[:max_length], whole.labels[:max_length])
            account.rows += 1
            account.truncated += len(whole.input_ids) > max_length
            trained = sum(label != IGNORED for label in tokens.labels)
            if not trained:
                account.dropped += 1
                continue
            _count(account, row, tokens, trained)
            yield row, whole, tokens


def _count(account: DatasetAccount, row: Row, tokens: Tokens, trained: int) -> None:
    if row.held_out:
        account.evaluation += 1
        return
    account.train += 1
    account.tokens += len(tokens.input_ids)
    account.trained_tokens += trained


def last_special(trained: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the last trained token that is a special one: what ends an answer."""
    special = {*tokenizer.get_added_vocab().values(), tokenizer.eos_token_id}
    return next((token for token in reversed(trained) if token in special), None)


def _check_left(account: Account, job: Job) -> None:
    held_out = job.run.spec.evaluation is not None
    why = "are longer than" if job.run.spec.stage == "Reward" else "have no trained token within"
    if account.total("train") and (account.total("evaluation") or not held_out):
        return
    raise DataError(
        ", ".join(dataset.uri for dataset in account.datasets[:3]),
        f"of {account.total('rows')} rows {account.total('dropped')} {why}"
        f" training.maxLength ({job.run.spec.require_training().max_length}), which leaves"
        f" {account.total('train')} to train on and {account.total('evaluation')} held out",
        "raise training.maxLength, shorten the prompts, or add rows",
    )


class ArrowFile:
    """Writes rows to an Arrow stream, a batch at a time; `datasets` opens it as it is.

    Args:
        path: The file to make.
        ids: Columns of token ids.
        flags: Columns that are true or false.
    """

    def __init__(self, path: Path, ids: Sequence[str], flags: Sequence[str] = ()) -> None:
        import pyarrow  # Late: only processes that tokenise need it here.

        self._pyarrow = pyarrow
        self._schema = pyarrow.schema(
            [(name, pyarrow.list_(pyarrow.int32())) for name in ids]
            + [(name, pyarrow.bool_()) for name in flags]
        )
        self._path = path
        self._waiting: list[Mapping[str, Any]] = []
        self._open = ExitStack()
        self._stream: Any = None

    def __enter__(self) -> Self:
        file = self._open.enter_context(self._path.open("wb"))
        stream = self._pyarrow.ipc.new_stream(file, self._schema)
        self._stream = self._open.enter_context(stream)
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            self._flush()

    def add(self, columns: Mapping[str, Any]) -> None:
        """Appends one row: its value in each column."""
        self._waiting.append(columns)
        if len(self._waiting) == ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = {name: [row[name] for row in self._waiting] for name in self._schema.names}
        self._stream.write_batch(self._pyarrow.record_batch(columns, schema=self._schema))
        self._waiting = []
