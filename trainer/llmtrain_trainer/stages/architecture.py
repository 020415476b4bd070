"""From a spec's `architecture` to the fields of a transformers configuration; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmtrain_api.stages.pretrain import Architecture

_ROWS = 64
"""Embedding rows come in multiples of it: matrix units work in tiles, and devices share evenly."""


@dataclass(frozen=True)
class Vocabulary:
    """What a new model has to know of its tokenizer."""

    size: int
    """The largest token id plus 1."""
    bos: int | None = None
    """The token that begins a text."""
    eos: int | None = None
    """The token that ends a text."""
    pad: int | None = None
    """The token that fills a batch up."""


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Returns the vocabulary of a transformers tokenizer."""
    return Vocabulary(
        size=max(tokenizer.get_vocab().values()) + 1,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


def embedding_rows(size: int) -> int:
    """Returns `size` tokens, rounded up to a multiple of 64 rows."""
    return -(-size // _ROWS) * _ROWS


def config_fields(architecture: Architecture, vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the fields of transformers' configuration of the architecture's family.

    What they do not say stays at the family's default, such as GPT-2's dropout of 0.1. A padding
    token that also begins or ends a text is left out: torch would not train its embedding.
    """
    ends = (vocabulary.bos, vocabulary.eos)
    common = {
        "vocab_size": embedding_rows(vocabulary.size),
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": None if vocabulary.pad in ends else vocabulary.pad,
    }
    return common | _sizes(architecture)


def _sizes(it: Architecture) -> dict[str, Any]:
    intermediate_size = it.intermediate_size or 4 * it.hidden_size
    if it.family == "gpt2":
        return {
            "n_embd": it.hidden_size,
            "n_layer": it.num_hidden_layers,
            "n_head": it.num_attention_heads,
            "n_inner": intermediate_size,
            "n_positions": it.max_position_embeddings,
        }
    sizes: dict[str, Any] = {
        "hidden_size": it.hidden_size,
        "num_hidden_layers": it.num_hidden_layers,
        "num_attention_heads": it.num_attention_heads,
        "num_key_value_heads": it.num_key_value_heads or it.num_attention_heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": it.max_position_embeddings,
    }
    if it.family == "qwen3":  # Its default is 128, whatever the model's width.
        sizes["head_dim"] = it.hidden_size // it.num_attention_heads
    if it.family == "mistral":  # Each token sees all before it, as in Mistral 7B from v0.2 on.
        sizes["sliding_window"] = None
    return sizes
