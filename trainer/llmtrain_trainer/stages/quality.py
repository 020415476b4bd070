"""How good a tokenizer is: what comes back of a text, and how many tokens it takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_TEXTS_AT_ONCE = 100

DIFFICULT = (
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷",  # One sign each to the eye, up to seven characters.
    "é e\u0301 ﬁ Å \u212b",  # The same to the eye, composed and not.
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙a͉̯͇̘l͖̜͙̙g̛͔̮o",
    "שָׁלוֹם עולם، مرحبا بالعالم",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "नमस्ते ไทย 한국어 ᄒ\u1161ᆫ 日本語 中文",
    "𠜎𠜱𠝹 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🀄 𓀀",  # noqa: RUF001
    "no\u00a0break \u2003em\u200bzero\u200cwidth\u200d\u2060joiner\u00adhyphen",
    "  two  and   three, \ttabs\t\n\n\nbreaks\r\nand trailing \n ",
    "\ufeffmark \ufffd \ufffe \uffff \ue000 \U0010ffff",
    "\x00\x01\x07\x1b[31m\x7f\x85\u2028\u2029",
    "▁ Ġ Ċ ## ##ing </w> <0x0A>",  # Marks that tokenizers use themselves.
    "<|im_start|>user\nhi<|im_end|> <s> </s> <unk> [MASK]",
    "def f(x):\n\treturn x**2  # λ → ∀",
    "1234567890 3.14159 1e-10 ½ ² ٣ Ⅷ",
    "don't I'll ’s “quotes” … – — won’t",  # noqa: RUF001
)
"""Texts that tokenizers are known to spoil."""


@dataclass(frozen=True)
class Quality:
    """What was measured on some texts."""

    texts: int = 0
    exact: int = 0
    """Texts that came back as they were, to the last character."""
    size: int = 0
    """Bytes in UTF-8."""
    tokens: int = 0
    unknown: int = 0
    """Tokens that stand for what the vocabulary lacks."""

    def __add__(self, other: Quality) -> Quality:
        return Quality(
            self.texts + other.texts,
            self.exact + other.exact,
            self.size + other.size,
            self.tokens + other.tokens,
            self.unknown + other.unknown,
        )

    @property
    def bytes_per_token(self) -> float | None:
        """How much text a token stands for; none where there is no token."""
        return self.size / self.tokens if self.tokens else None

    @property
    def unknown_rate(self) -> float | None:
        """Share of the tokens that are unknown."""
        return self.unknown / self.tokens if self.tokens else None

    @property
    def exact_share(self) -> float | None:
        """Share of the texts that came back as they were."""
        return self.exact / self.texts if self.texts else None


def measure(tokenizer: Any, texts: Iterable[str]) -> Iterator[Quality]:
    """Yields what was measured on each batch of texts, tokenised and put together as users do.

    Args:
        tokenizer: A tokenizer of transformers.
        texts: The texts; some of them are held at once.
    """
    source = iter(texts)
    while batch := list(itertools.islice(source, _TEXTS_AT_ONCE)):
        encoded = tokenizer(batch, add_special_tokens=False)["input_ids"]
        decoded = tokenizer.batch_decode(encoded)
        unknown = tokenizer.unk_token_id
        yield Quality(
            texts=len(batch),
            exact=sum(one == other for one, other in zip(batch, decoded, strict=True)),
            size=sum(len(text.encode()) for text in batch),
            tokens=sum(len(ids) for ids in encoded),
            unknown=sum(ids.count(unknown) for ids in encoded) if unknown is not None else 0,
        )
