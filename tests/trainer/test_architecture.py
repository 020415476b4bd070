"""An architecture becomes the configuration of its family, and that a model of the sizes asked."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from llmtrain_api.stages.pretrain import Architecture
from llmtrain_trainer.stages.architecture import Vocabulary, config_fields, embedding_rows

FAMILIES: tuple[str, ...] = get_args(Architecture.model_fields["family"].annotation)
VOCABULARY = Vocabulary(size=500, bos=None, eos=2, pad=3)
COMMON = {
    "vocab_size": 512,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
LLAMA = COMMON | {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 2048,
}
GPT2 = COMMON | {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 256, "n_positions": 2048}


def architecture(family: str, **changes: Any) -> Architecture:
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return Architecture.model_validate({"family": family, **sizes, **changes})


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        pytest.param("llama", LLAMA, id="llama"),
        pytest.param("qwen2", LLAMA, id="qwen2, with as many key as attention heads"),
        pytest.param("qwen3", LLAMA | {"head_dim": 16}, id="qwen3, whose heads share the width"),
        pytest.param("phi", LLAMA, id="phi"),
        pytest.param("mistral", LLAMA | {"sliding_window": None}, id="mistral, without a window"),
        pytest.param("gpt2", GPT2, id="gpt2, by its own names"),
    ],
)
def test_each_family_is_named_in_its_own_words(family: str, expected: dict[str, Any]) -> None:
    assert config_fields(architecture(family), VOCABULARY) == expected


def test_what_is_asked_for_is_taken() -> None:
    asked = {
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    assert asked.items() <= config_fields(architecture("mistral", **asked), VOCABULARY).items()


@pytest.mark.parametrize(
    ("tokens", "rows"), [(1, 64), (64, 64), (65, 128), (32_000, 32_000), (50_257, 50_304)]
)
def test_embedding_rows_come_in_multiples_of_64(tokens: int, rows: int) -> None:
    assert embedding_rows(tokens) == rows


@pytest.mark.parametrize(
    ("bos", "eos", "pad", "expected"),
    [
        pytest.param(1, 2, 3, 3, id="a token of its own"),
        pytest.param(None, 2, 2, None, id="the end, whose embedding has to be trained"),
        pytest.param(1, 2, 1, None, id="the beginning, likewise"),
        pytest.param(None, 2, None, None, id="none"),
    ],
)
def test_padding_is_named_where_it_is_nothing_else(
    bos: int | None, eos: int, pad: int | None, expected: int | None
) -> None:
    fields = config_fields(architecture("llama"), Vocabulary(500, bos, eos, pad))
    assert fields["pad_token_id"] == expected


@pytest.mark.parametrize(
    ("family", "hidden_size", "fits"),
    [
        pytest.param("llama", 60, False, id="heads of 15 with llama"),
        pytest.param("llama", 56, True, id="heads of 14 with llama"),
        pytest.param("phi", 56, False, id="heads of 14 with phi, which turns half of them"),
        pytest.param("phi", 48, True, id="heads of 12 with phi"),
        pytest.param("gpt2", 60, True, id="heads of 15 with gpt2, which turns nothing"),
    ],
)
def test_heads_that_cannot_be_turned_are_refused(family: str, hidden_size: int, fits: bool) -> None:
    if fits:
        architecture(family, hidden_size=hidden_size)
        return
    with pytest.raises(ValidationError, match="hiddenSize: use a width"):
        architecture(family, hidden_size=hidden_size)


def parameters(family: str, it: dict[str, Any]) -> int:
    """Returns the parameters of a model with untied embeddings, counted by hand."""
    width, ffn, heads, kv = it["width"], it["ffn"], it["heads"], it["kv"]
    head = width // heads
    attention = 2 * width * width + 2 * width * kv * head
    attention_bias = 2 * width + 2 * kv * head
    embeddings = 2 * it["rows"] * width
    match family:
        case "llama" | "mistral":
            layer, rest = attention + 3 * width * ffn + 2 * width, width
        case "qwen2":  # Query, key and value have a bias.
            bias = width + 2 * kv * head
            layer, rest = attention + bias + 3 * width * ffn + 2 * width, width
        case "qwen3":  # Each head's queries and keys are normalised.
            layer, rest = attention + 2 * head + 3 * width * ffn + 2 * width, width
        case "phi":  # One norm per layer; biases everywhere, the output head's too.
            feed_forward = 2 * width * ffn + ffn + width
            layer, rest = attention + attention_bias + feed_forward + 2 * width, 0
            rest = 2 * width + it["rows"]
        case _:  # gpt2 learns its positions.
            feed_forward = 2 * width * ffn + ffn + width
            layer = attention + attention_bias + feed_forward + 4 * width
            rest = 2 * width + it["context"] * width
    return int(embeddings + it["layers"] * layer + rest)


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_has_the_parameters_that_a_count_by_hand_gives(family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    kv = {} if family == "gpt2" else {"num_key_value_heads": 2}
    asked = architecture(family, intermediate_size=96, max_position_embeddings=32, **kv)
    config = AutoConfig.for_model(family, **config_fields(asked, VOCABULARY))
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    sizes = {
        "rows": 512,
        "width": 64,
        "layers": 3,
        "heads": 4,
        "kv": kv.get("num_key_value_heads", 4),
        "ffn": 96,
        "context": 32,
    }
    assert model.num_parameters() == parameters(family, sizes)
    assert model.get_input_embeddings().weight.shape == (512, 64)


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True], ids=["two embeddings", "one embedding"])
def test_embeddings_are_one_where_it_is_asked(family: str, tied: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    asked = architecture(family, tie_word_embeddings=tied)
    config = AutoConfig.for_model(family, **config_fields(asked, VOCABULARY))
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
