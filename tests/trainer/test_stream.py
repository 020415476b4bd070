"""A stream holds every token of every document once, in order, however it is written and read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jobs
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data import corpus, stream
from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.data.corpus import encode
from llmtrain_trainer.data.stream import Sequences, Stream, StreamWriter
from llmtrain_trainer.data.texts import Document
from llmtrain_trainer.workdir import Job

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
END = len(BYTES)


class ByteTokenizer(SimpleNamespace):
    """A tokenizer with a token for each byte, and one that ends a text."""

    def __init__(self, *, eos: int | None = END, is_fast: bool = True) -> None:
        vocabulary = {letter: number for number, letter in enumerate([*BYTES, "<end>"])}
        backend = Tokenizer(models.BPE(vocabulary, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        super().__init__(
            backend_tokenizer=backend,
            eos_token_id=eos,
            is_fast=is_fast,
            get_vocab=lambda: vocabulary,
        )


def write(folder: Path, documents: Sequence[Sequence[int]], vocabulary: int = 300) -> Stream:
    with StreamWriter(folder, "it", vocabulary) as writer:
        for ids in documents:
            writer.add(ids)
    return Stream(folder, "it")


def random_documents(chance: random.Random) -> list[list[int]]:
    longest = chance.choice([1, 3, 40, 3000])
    count = chance.randint(1, 60)
    return [
        [chance.randrange(300) for _ in range(chance.randint(0, longest))] for _ in range(count)
    ]


def read_back(sequences: Sequences, name: str = "input_ids") -> list[int]:
    return [int(token) for i in range(len(sequences)) for token in sequences[i][name]]


@pytest.mark.parametrize("seed", range(20))
def test_every_token_is_there_once_in_order(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(stream, "_NUMBERS_AT_ONCE", chance.choice([1, 2, 7, 1000, 1 << 18]))
    documents = [[1, 2], *random_documents(chance)]
    flat = [token for ids in documents for token in ids]
    written = write(tmp_path, documents)
    assert list(written.tokens) == flat
    for length in (1, 2, 7, chance.randint(3, 500), len(flat), len(flat) + 1):
        sequences = Sequences(written, length, isolate=False)
        assert len(sequences) == -(-(len(flat) - 1) // length)
        alone = (len(flat) - 1) % length == 0  # The last one, which nothing follows.
        assert read_back(sequences) == (flat[:-1] if alone else flat)
        assert {len(sequences[i]["input_ids"]) for i in range(len(sequences) - 1)} <= {length}


@pytest.mark.parametrize("length", [1, 2, 7, 48])
@pytest.mark.parametrize("count", [*range(2, 10), 47, 48, 49, 50, 96, 97, 98])
def test_every_token_but_the_first_is_a_target_once(
    count: int, length: int, tmp_path: Path
) -> None:
    flat = list(range(count))
    sequences = Sequences(write(tmp_path, [flat[:2], flat[2:]]), length, isolate=False)
    targets = [sequences[i]["targets"] for i in range(len(sequences))]
    assert [int(t) for part in targets for t in part if t != IGNORED] == flat[1:]
    assert all((part != IGNORED).any() for part in targets), "no loss is that of no token"


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("ids", [[], [7]])
def test_without_a_target_there_is_no_sequence(ids: list[int], length: int, tmp_path: Path) -> None:
    assert len(Sequences(write(tmp_path, [ids]), length, isolate=False)) == 0


@pytest.mark.parametrize("seed", range(20))
def test_positions_begin_anew_with_each_document_and_sequence(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    documents = [[1, 2], *random_documents(chance)]
    length = chance.choice([1, 2, 16, 100])
    sequences = Sequences(write(tmp_path, documents), length, isolate=True)
    expected: list[int] = []
    for ids in documents:
        for number in range(len(ids)):
            first_of_sequence = len(expected) % length == 0
            expected.append(0 if number == 0 or first_of_sequence else expected[-1] + 1)
    read = read_back(sequences, "position_ids")
    assert read == expected[: len(read)]
    assert len(read) == len(read_back(sequences))


def test_sequences_do_not_begin_below_0_or_go_on_after_the_end(tmp_path: Path) -> None:
    sequences = Sequences(write(tmp_path, [[1, 2, 3]]), 2, isolate=False)
    for index in (-1, 1, 2):
        with pytest.raises(IndexError):
            sequences[index]


@pytest.mark.parametrize(
    ("vocabulary", "largest", "dtype", "size"),
    [
        pytest.param(65_536, 65_535, "uint16", 2, id="two bytes as long as they do"),
        pytest.param(65_537, 65_536, "uint32", 4, id="four bytes from there on"),
    ],
)
def test_a_token_takes_two_bytes_where_they_do(
    vocabulary: int, largest: int, dtype: str, size: int, tmp_path: Path
) -> None:
    written = write(tmp_path, [[0, largest], [largest]], vocabulary)
    assert written.kind.dtype == dtype
    assert (tmp_path / "it.tokens").stat().st_size == 3 * size
    assert list(written.tokens) == [0, largest, largest]
    assert (written.kind.tokens, written.kind.documents) == (3, 2)


def test_a_token_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OverflowError):
        write(tmp_path, [[65_536]], vocabulary=300)
    assert not (tmp_path / "it.json").exists(), "what was cut short does not look whole"


def test_the_files_are_named_by_their_content(tmp_path: Path) -> None:
    kind = write(tmp_path, [[1, 2], [3]]).kind
    for name, digest in (("tokens", kind.tokens_sha256), ("documents", kind.documents_sha256)):
        content = (tmp_path / f"it.{name}").read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()


def test_a_file_that_was_cut_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2], [3]])
    (tmp_path / "it.tokens").write_bytes(b"\1\0")
    with pytest.raises(ValueError, match="has 2 bytes, which are not 3 uint16"):
        Stream(tmp_path, "it")


TEXTS = ["a", "", "two words", "x" * 50, "für 日本 \U0001f600\n\n", "", "end"]


def bytes_of(text: str) -> list[int]:
    """Returns what the byte tokenizer says of a text, by GPT-2's table of bytes."""
    visible = dict(zip(_byte_order(), _byte_letters(), strict=True))
    return [BYTES.index(visible[byte]) for byte in text.encode()]


def _byte_order() -> list[int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [byte for byte in range(256) if byte not in printable]


def _byte_letters() -> list[str]:
    order = _byte_order()
    return [chr(byte) for byte in order[:188]] + [chr(256 + number) for number in range(68)]


@pytest.mark.parametrize("characters_at_once", [1, 3, 10, 1_000_000])
def test_documents_are_encoded_one_by_one_however_many_at_once(characters_at_once: int) -> None:
    documents = [Document(f"line {i}", text, held_out=False) for i, text in enumerate(TEXTS)]
    encoded = list(encode(ByteTokenizer(), documents, END, characters_at_once=characters_at_once))
    assert [document for document, _ in encoded] == documents
    expected = [[*bytes_of(text), END] if text else [] for text in TEXTS]
    assert [ids for _, ids in encoded] == expected


def test_no_more_is_held_than_two_batches() -> None:
    drawn: list[int] = []

    def endless() -> Any:
        while True:
            drawn.append(0)
            yield Document("line", "ten chars.", held_out=False)

    next(encode(ByteTokenizer(), endless(), None, characters_at_once=100))
    assert len(drawn) == 21  # Two batches of ten, and what did not fit into them.


def test_an_end_that_the_tokenizer_adds_is_not_doubled() -> None:
    tokenizer = ByteTokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> $A <end>", special_tokens=[("<end>", END)]
    )
    [(_, ids)] = encode(tokenizer, [Document("line 1", "a", held_out=False)], END)
    assert ids == [END, *bytes_of("a"), END]


def test_truncation_and_padding_saved_with_the_tokenizer_do_not_count() -> None:
    tokenizer = ByteTokenizer()
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=16, pad_id=END, pad_token="<end>")
    documents = [Document(f"line {i}", text, held_out=False) for i, text in enumerate(TEXTS)]
    encoded = [ids for _, ids in encode(tokenizer, documents, None)]
    assert encoded == [bytes_of(text) for text in TEXTS]


def job(folder: Path, changes: dict[str, Any] | None = None) -> Job:
    rows = [[{"text": text} for text in TEXTS], [{"text": f"document {i}"} for i in range(40)]]
    of_pretraining = {
        "stage": "Pretrain",
        "datasets": [{"uri": f"s3://data/{i}.jsonl", "format": "Text"} for i in range(2)],
    }
    changes = of_pretraining | (changes or {})
    jobs.write_job(folder, folder, changes, data=rows[: len(changes["datasets"])])
    return Job.model_validate_json((folder / "job.json").read_bytes())


def test_each_document_is_trained_held_out_or_dropped(tmp_path: Path) -> None:
    split = job(tmp_path, {"evaluation": {"fraction": 0.3}})
    account = corpus.prepare(split, ByteTokenizer(), tmp_path / "tokens")
    train, held_out = (Stream(tmp_path / "tokens", n) for n in (corpus.TRAIN, corpus.HELD_OUT))
    assert (account.total("rows"), account.total("dropped")) == (47, 2)
    assert train.kind.documents == account.total("train") > 20
    assert held_out.kind.documents == account.total("evaluation") > 5
    assert account.total("train") + account.total("evaluation") == 45
    assert len(train.tokens) == account.total("tokens") == account.total("trained_tokens")
    texts = [*TEXTS, *(f"document {i}" for i in range(40))]
    every = sorted([*documents(train), *documents(held_out)])
    assert every == sorted([*bytes_of(text), END] for text in texts if text)
    assert account.largest_id == END


def documents(written: Stream) -> list[list[int]]:
    return [list(map(int, part)) for part in np.split(written.tokens, written.ends[:-1])]


def test_the_stream_does_not_depend_on_the_length(tmp_path: Path) -> None:
    digests = set()
    for length in (8, 64):
        folder = tmp_path / str(length)
        corpus.prepare(job(folder, {"training.maxLength": length}), ByteTokenizer(), folder / "t")
        digests.add(Stream(folder / "t", corpus.TRAIN).kind.tokens_sha256)
    assert len(digests) == 1


def test_streams_are_used_again_by_the_same_job_only(tmp_path: Path) -> None:
    same = job(tmp_path)
    corpus.prepare(same, ByteTokenizer(), tmp_path / "tokens")
    before = (tmp_path / "tokens" / "train.tokens").stat().st_mtime_ns
    corpus.prepare(same, ByteTokenizer(), tmp_path / "tokens")
    assert (tmp_path / "tokens" / "train.tokens").stat().st_mtime_ns == before
    other = job(tmp_path, {"pretrain": {"appendEosToken": False}})
    corpus.prepare(other, ByteTokenizer(), tmp_path / "tokens")
    assert END not in Stream(tmp_path / "tokens", corpus.TRAIN).tokens


@pytest.mark.parametrize(
    ("tokenizer", "changes", "error", "message"),
    [
        pytest.param(
            ByteTokenizer(eos=None),
            {},
            ConfigError,
            "pretrain.appendEosToken: the tokenizer of s3://models/tiny/ has no end-of-sequence"
            " token: name its `eos_token` in tokenizer_config.json, or set appendEosToken: false",
            id="no token that ends a document",
        ),
        pytest.param(
            ByteTokenizer(is_fast=False),
            {},
            ConfigError,
            "model.uri: its tokenizer ByteTokenizer is not one of the library `tokenizers`: save it"
            " as tokenizer.json",
            id="a slow tokenizer",
        ),
        pytest.param(
            ByteTokenizer(),
            {"evaluation": {"fraction": 1e-12}},
            DataError,
            "s3://data/0.jsonl, s3://data/1.jsonl: of 47 documents 2 have no text, which leaves 45"
            " to train on and 0 held out",
            id="nothing held out",
        ),
        pytest.param(
            ByteTokenizer(),
            {
                "datasets": [{"uri": "s3://data/0.jsonl", "format": "Text", "maxSamples": 1}],
                "pretrain": {"appendEosToken": False},
            },
            DataError,
            "s3://data/0.jsonl: the documents to train on are one token in all, and none follows"
            " it: add documents",
            id="one token and no other",
        ),
    ],
)
def test_what_cannot_be_trained_is_told(
    tokenizer: Any, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        corpus.prepare(job(tmp_path, changes), tokenizer, tmp_path / "tokens")
    assert message in str(raised.value)
