"""Vocabularies: the same text makes the same one in every process, and what is lost is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer

from llmtrain_api.errors import ConfigError
from llmtrain_api.stages.tokenizer import TokenizerTraining
from llmtrain_trainer.stages import vocabulary
from llmtrain_trainer.stages.vocabulary import settle_scores, special_tokens

pytestmark = pytest.mark.torch  # Training vocabularies takes seconds too.

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
TEXTS = [part for page in PAGES for part in page.read_text("utf-8").split("\n\n")]
ALGORITHMS = ("BPE", "Unigram", "WordPiece")


def settings(**changes: Any) -> TokenizerTraining:
    return TokenizerTraining.model_validate({"vocabSize": 1000, **changes})


def train(texts: list[str] | None = None, **changes: Any) -> Tokenizer:
    texts = texts or TEXTS
    characters = set("".join(texts))
    return vocabulary.train(iter(texts), characters, settings(**changes))


PROGRAM = """
import hashlib, sys
sys.path[:0] = sys.argv[2:]
import test_vocabulary
text = test_vocabulary.train(algorithm=sys.argv[1], specialTokens={"bosToken": "<s>"}).to_str()
print(hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_make_the_same_tokenizer(algorithm: str) -> None:
    paths = [str(Path(__file__).parent), *sys.path]
    made = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, algorithm, *paths],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(3)
    ]
    assert len(made[0]) == 65
    assert len(set(made)) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {},
            ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"],
            id="BPE knows all bytes, so it needs no unknown token",
        ),
        pytest.param(
            {"algorithm": "Unigram", "chatTemplate": "None"},
            ["<|endoftext|>", "<|pad|>", "<|unk|>"],
            id="without a chat template its marks are not there",
        ),
        pytest.param(
            {
                "specialTokens": {
                    "bosToken": "<s>",
                    "eosToken": "<|im_end|>",
                    "padToken": "<|im_end|>",
                    "extra": ["<tool>", "<s>"],
                }
            },
            ["<s>", "<|im_end|>", "<|im_start|>", "<tool>"],
            id="a token of two uses has one id",
        ),
    ],
)
def test_special_tokens_come_first(changes: dict[str, Any], expected: list[str]) -> None:
    assert special_tokens(settings(**changes)) == expected
    tokenizer = train(**changes)
    assert [tokenizer.id_to_token(number) for number in range(len(expected))] == expected
    for token in expected:
        assert tokenizer.encode(f"a{token}b", add_special_tokens=False).tokens[1:-1] == [token]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_text_begins_with_the_begin_token_where_there_is_one(algorithm: str) -> None:
    tokenizer = train(algorithm=algorithm, specialTokens={"bosToken": "<s>"})
    assert tokenizer.encode("a b").tokens[0] == "<s>"
    assert train(algorithm=algorithm).encode("a b").tokens[0] != "<s>"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_vocabulary_is_as_large_as_asked(algorithm: str) -> None:
    tokenizer = train(algorithm=algorithm, vocabSize=777)
    ids = sorted(tokenizer.get_vocab().values())
    assert ids == list(range(777))


@pytest.mark.parametrize(
    ("algorithm", "text", "tokens"),
    [
        pytest.param("Unigram", "a  b", "a  b", id="Unigram keeps spaces"),
        pytest.param("WordPiece", "a  b", "a b", id="WordPiece has one space between words"),
        pytest.param("BPE", "a  b\n\x00☃", "a  b\n\x00☃", id="BPE keeps all bytes"),
    ],
)
def test_what_comes_back_of_a_text(algorithm: str, text: str, tokens: str) -> None:
    tokenizer = train(algorithm=algorithm)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == tokens


@pytest.mark.parametrize("algorithm", ["Unigram", "WordPiece"])
def test_a_character_that_was_not_there_is_unknown(algorithm: str) -> None:
    tokenizer = train(algorithm=algorithm)
    unknown = tokenizer.token_to_id("<|unk|>")
    assert unknown in tokenizer.encode("a ☃ b").ids
    assert unknown not in tokenizer.encode("a model").ids


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        pytest.param(
            "BPE",
            {"vocabSize": 300, "specialTokens": {"extra": [f"<{n}>" for n in range(50)]}},
            "300 tokens are too few for 256 different bytes and 54 special tokens: use at least"
            " 310",
            id="bytes",
        ),
        pytest.param(
            "Unigram",
            {"vocabSize": 300},
            "300 tokens are too few for 1000 different characters and 5 special tokens",
            id="characters",
        ),
        pytest.param(
            "WordPiece",
            {"vocabSize": 1500},
            "1500 tokens are too few for 2000 different characters, at and after the begin",
            id="characters in two places",
        ),
    ],
)
def test_a_vocabulary_too_small_for_the_text_is_refused(
    algorithm: str, changes: dict[str, Any], message: str
) -> None:
    text = "".join(chr(0xAC00 + number) for number in range(1000))
    with pytest.raises(ConfigError) as error:
        train([text], algorithm=algorithm, **changes)
    assert str(error.value).startswith(f"tokenizerTraining.vocabSize: {message}")


def test_a_vocabulary_below_the_bytes_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 300"):
        settings(vocabSize=299)


def test_an_error_of_the_documents_is_passed_on() -> None:
    def broken() -> Any:
        yield "a"
        raise KeyError("b")

    with pytest.raises(KeyError, match="b"):
        vocabulary.train(broken(), {"a"}, settings())


@pytest.mark.parametrize(
    ("pieces", "settled"),
    [
        pytest.param(
            [("b", -2.00000000001), ("ab", -1.0), ("a", -2.0)],
            [("ab", -1.0), ("a", -2.0), ("b", -2.0)],
            id="noise goes, and equal scores stand in the order of the alphabet",
        ),
        pytest.param(
            [("ab", -1.0), ("y", -9.0), ("z", -8.9999), ("x", -8.9998), ("c", -5.0)],
            [("ab", -1.0), ("c", -5.0), ("x", -8.9998), ("y", -8.9999), ("z", -9.0)],
            id="characters that came back are in the order of the alphabet",
        ),
    ],
)
def test_scores_are_settled(
    pieces: list[tuple[str, float]], settled: list[tuple[str, float]]
) -> None:
    assert settle_scores(pieces) == settled
