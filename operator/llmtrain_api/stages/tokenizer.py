"""`stage: Tokenizer`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import Atomic, Rule


class SpecialTokens(ApiModel):
    """The tokens that stand for no text."""

    bos_token: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Begins a text. Default: none."""

    eos_token: Annotated[str, Field(min_length=1, max_length=64)] = "<|endoftext|>"
    """Ends a text. Default: `<|endoftext|>`, as in GPT-2."""

    pad_token: Annotated[str, Field(min_length=1, max_length=64)] = "<|pad|>"
    """Fills a batch up. Default: `<|pad|>`."""

    unk_token: Annotated[str, Field(min_length=1, max_length=64)] = "<|unk|>"
    """Stands for what the vocabulary lacks, with Unigram and WordPiece. With BPE, whose vocabulary
    lacks nothing, it is left out. Default: `<|unk|>`."""

    extra: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=256), Atomic()
    ] = []
    """More of them, such as the marks of a chat. Default: none."""


class TokenizerTraining(ApiModel):
    """A new tokenizer, `stage: Tokenizer`, by the library `tokenizers`."""

    rules: ClassVar = (
        Rule(
            "self.algorithm != 'Unigram' || self.minFrequency == 0",
            lambda it: it.algorithm != "Unigram" or it.min_frequency == 0,
            "only BPE and WordPiece merge pairs: remove it, or use one of them",
            at="minFrequency",
            reason="FieldValueForbidden",
        ),
    )

    algorithm: Literal["BPE", "Unigram", "WordPiece"] = "BPE"
    """`BPE` works on bytes, so that it knows every text; `Unigram` and `WordPiece` on characters.
    """

    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)]
    """Number of tokens, special ones included; at least 300, since BPE begins with 256 bytes."""

    min_frequency: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How often a pair must occur to be merged, with BPE and WordPiece; Unigram merges no pairs and
    refuses it. Default: 0, as in `tokenizers`."""

    special_tokens: SpecialTokens = SpecialTokens()
    """The tokens that stand for no text."""

    chat_template: Literal["ChatML", "None"] = "ChatML"
    """`ChatML` adds a chat template with marks around the assistant's words, and its tokens
    `<|im_start|>` and `<|im_end|>`."""
