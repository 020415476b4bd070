"""Trains a vocabulary with `tokenizers`, so that the same text makes the same one each time.

The library's own training of Unigram and WordPiece is not repeatable: it keeps words in hash maps
with a new seed in every process, and token ids or scores follow their order. What is done about it
stands at each of them. BPE needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from llmtrain_api.errors import ConfigError
from llmtrain_api.stages.tokenizer import TokenizerTraining
from llmtrain_trainer.data import templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
_BYTES = 256
_CONTINUES = "##"  # Begins a token of WordPiece that does not begin a word.
_SMALLEST_STEP = 1e-4  # By which Unigram's trainer sets characters apart that it had dropped.
_DECIMALS = 4  # Of Unigram's scores: coarse beside the noise of their sums, fine beside themselves.


def special_tokens(settings: TokenizerTraining) -> list[str]:
    """Returns the special tokens in the order of their ids, which begin at 0."""
    named = settings.special_tokens
    found = [named.bos_token, named.eos_token, named.pad_token]
    if settings.algorithm != "BPE":
        found.append(named.unk_token)
    if settings.chat_template == "ChatML":
        found += CHATML_TOKENS
    return list(dict.fromkeys(token for token in [*found, *named.extra] if token is not None))


def train(
    texts: Iterator[str], characters: Collection[str], settings: TokenizerTraining
) -> Tokenizer:
    """Returns a tokenizer whose vocabulary was learned from `texts`.

    Args:
        texts: The documents to learn from.
        characters: All characters that are in them.
        settings: What the vocabulary is to be like.

    Raises:
        ConfigError: The vocabulary is too small for the characters.
    """
    match settings.algorithm:
        case "BPE":
            tokenizer = _train_bpe(texts, settings)
        case "Unigram":
            tokenizer = _train_unigram(texts, characters, settings)
        case "WordPiece":
            tokenizer = _train_wordpiece(texts, characters, settings)
    if (begin := settings.special_tokens.bos_token) is not None:
        begins = processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin}:1 $B:1",
            special_tokens=[(begin, tokenizer.token_to_id(begin))],
        )
        before = tokenizer.post_processor
        tokenizer.post_processor = processors.Sequence([before, begins]) if before else begins
    return tokenizer


def wrap(tokenizer: Tokenizer, settings: TokenizerTraining) -> PreTrainedTokenizerFast:
    """Returns the tokenizer as transformers saves it, with its chat template."""
    from transformers import PreTrainedTokenizerFast  # Late: it takes seconds.

    named = settings.special_tokens
    roles = {"bos_token": named.bos_token, "eos_token": named.eos_token}
    roles["pad_token"] = named.pad_token
    if settings.algorithm != "BPE":
        roles["unk_token"] = named.unk_token
    own = {token for token in roles.values() if token is not None}
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        **{role: token for role, token in roles.items() if token is not None},
        extra_special_tokens=[token for token in special_tokens(settings) if token not in own],
        clean_up_tokenization_spaces=False,
    )
    if settings.chat_template == "ChatML":
        begin = "{{- bos_token }}" if named.bos_token is not None else ""
        wrapped.chat_template = begin + templates.named("chatml")
    return wrapped


def _train_bpe(texts: Iterator[str], settings: TokenizerTraining) -> Tokenizer:
    """Learns merges of bytes, so that every text comes back as it was."""
    special = special_tokens(settings)
    _check_size(settings, special, _BYTES, "bytes")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_unigram(
    texts: Iterator[str], characters: Collection[str], settings: TokenizerTraining
) -> Tokenizer:
    """Learns pieces and their scores; spaces are kept, so that known characters come back."""
    special = special_tokens(settings)
    _check_size(settings, special, len(characters), "characters")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=special,
        unk_token=settings.special_tokens.unk_token,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = settle_scores(_pieces_of(tokenizer)[len(special) :])
    vocabulary = [*((token, 0.0) for token in special), *pieces]
    settled = Tokenizer(
        models.Unigram(vocabulary, special.index(settings.special_tokens.unk_token))
    )
    settled.pre_tokenizer = tokenizer.pre_tokenizer
    settled.decoder = decoders.Metaspace(prepend_scheme="never")
    settled.add_special_tokens(_exactly(special))
    return settled


def settle_scores(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Returns the pieces of a Unigram model with scores that do not differ between two trainings.

    Scores are sums in an order that differs: they are rounded. Characters that training had dropped
    come back at the lowest score plus one step for each, in an order that differs: theirs becomes
    that of the alphabet.
    """
    lowest = min((score for _, score in pieces), default=0.0)

    def stands_on_a_step(score: float) -> bool:
        steps = (score - lowest) / _SMALLEST_STEP
        return round(steps) <= len(pieces) and abs(steps - round(steps)) < _SMALLEST_STEP

    returned = {
        piece: score for piece, score in pieces if len(piece) == 1 and stands_on_a_step(score)
    }
    in_order = zip(sorted(returned), sorted(returned.values(), reverse=True), strict=True)
    scores = {**dict(pieces), **dict(in_order)}
    rounded = ((piece, round(score, _DECIMALS)) for piece, score in scores.items())
    return sorted(rounded, key=lambda pair: (-pair[1], pair[0]))


def _pieces_of(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in vocabulary]


def _train_wordpiece(
    texts: Iterator[str], characters: Collection[str], settings: TokenizerTraining
) -> Tokenizer:
    """Learns the pieces of words, as BERT has them; the space between words is not kept.

    The trainer numbers the characters in an order that differs, and breaks ties by those numbers:
    so it is given them in the order of the alphabet, in the guise of special tokens.
    """
    special = special_tokens(settings)
    splitter = pre_tokenizers.BertPreTokenizer()
    begin = [each for each in sorted(characters) if splitter.pre_tokenize_str(each)]
    go_on = [_CONTINUES + each for each in begin if len(splitter.pre_tokenize_str(f"a{each}")) == 1]
    alphabet = [token for token in (*begin, *go_on) if token not in special]
    _check_size(settings, special, len(alphabet), "characters, at and after the begin of a word,")
    learner = Tokenizer(models.WordPiece(unk_token=settings.special_tokens.unk_token))
    learner.pre_tokenizer = splitter
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=[*special, *alphabet],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(
        models.WordPiece(learner.get_vocab(), unk_token=settings.special_tokens.unk_token)
    )
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES, cleanup=False)
    tokenizer.add_special_tokens(_exactly(special))
    return tokenizer


def _exactly(special: list[str]) -> list[str | AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in special]


def _check_size(settings: TokenizerTraining, special: list[str], units: int, name: str) -> None:
    """Holds the size of the vocabulary against what must be in it."""
    needed = len(special) + units
    if settings.vocab_size < needed:
        raise ConfigError(
            "tokenizerTraining.vocabSize",
            f"{settings.vocab_size} tokens are too few for {units} different {name} and"
            f" {len(special)} special tokens",
            f"use at least {needed}, better a multiple of it",
        )
