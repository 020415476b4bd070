"""A model that cannot be trained is refused before any process loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.errors import ConfigError, DataError, LLMTrainError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.preflight import check_model

HEADER = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})
WEIGHTS = chr(len(HEADER)) + 7 * "\0" + HEADER + "1234"
CONFIG = {"model_type": "llama", "max_position_embeddings": 256}


def model(folder: Path, **files: str | None) -> Path:
    """Writes a model's files; a value of None leaves one out."""
    content: dict[str, str | None] = {
        "config.json": json.dumps(CONFIG),
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "chat_template.jinja": "x",
        "model.safetensors": WEIGHTS,
    }
    content |= {name.replace("__", "."): text for name, text in files.items()}
    for name, text in content.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def spec(**changes: Any) -> RunSpec:
    return RunSpec.model_validate(
        jobs.small_spec({name.replace("__", "."): value for name, value in changes.items()})
    )


def completions() -> dict[str, Any]:
    return {"datasets": [{"uri": "s3://data/a.jsonl", "format": "PromptCompletion"}]}


def test_a_whole_model_is_taken(tmp_path: Path) -> None:
    check_model(model(tmp_path), spec(training__maxLength=256))


def test_a_template_in_the_tokenizer_config_counts(tmp_path: Path) -> None:
    old = {"tokenizer_config__json": '{"chat_template": "x"}', "chat_template__jinja": None}
    check_model(model(tmp_path, **old), spec())


def test_plain_completions_need_no_template(tmp_path: Path) -> None:
    check_model(model(tmp_path, chat_template__jinja=None), spec(**completions()))


def test_a_model_without_a_fixed_context_takes_any_length(tmp_path: Path) -> None:
    check_model(model(tmp_path, config__json="{}"), spec(training__maxLength=99_999))


INDEX = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        pytest.param({"config__json": None}, DataError, "has no config.json", id="no config"),
        pytest.param(
            {"config__json": "{"}, DataError, "config.json: is not JSON", id="torn config"
        ),
        pytest.param({"config__json": "[]"}, DataError, "is no JSON object", id="config a list"),
        pytest.param(
            {"tokenizer__json": None}, DataError, "has no tokenizer.json", id="no tokenizer"
        ),
        pytest.param(
            {"tokenizer__json": '{"model": {"vocab'},
            DataError,
            "s3://models/tiny/, tokenizer.json: is not JSON",
            id="torn tokenizer",
        ),
        pytest.param(
            {"model__safetensors": WEIGHTS[:-1]},
            DataError,
            f"model.safetensors: is cut or damaged: {len(WEIGHTS) - 1} bytes, not {len(WEIGHTS)}",
            id="weights cut at their end",
        ),
        pytest.param(
            {"model__safetensors": WEIGHTS[:20]},
            DataError,
            "model.safetensors: is cut or damaged: it has 20 bytes",
            id="weights cut in their header",
        ),
        pytest.param(
            {"model__safetensors": ""},
            DataError,
            "model.safetensors: is cut or damaged: it has 0 bytes",
            id="empty weights",
        ),
        pytest.param(
            {"model__safetensors": chr(2) + 7 * "\0" + "[]"},
            DataError,
            "model.safetensors: has a header that is not that of a safetensors file",
            id="weights with a strange header",
        ),
        pytest.param(
            {"model__safetensors": None}, DataError, "has no safetensors weights", id="no weights"
        ),
        pytest.param(
            {"model__safetensors__index__json": INDEX, "one__safetensors": WEIGHTS},
            DataError,
            "lacks 1 of its 2 weight files, such as two.safetensors",
            id="a part of the weights missing",
        ),
        pytest.param(
            {"chat_template__jinja": None},
            ConfigError,
            "model.uri: the tokenizer of s3://models/tiny/ has no chat template, and"
            " s3://data/train.jsonl has the format Alpaca",
            id="no chat template",
        ),
        pytest.param(
            {"config__json": json.dumps({"text_config": {"max_position_embeddings": 64}})},
            ConfigError,
            "training.maxLength: 128 tokens are more than the model's context of 64: use at most",
            id="rows longer than the context",
        ),
        pytest.param(
            {"config__json": json.dumps({"model_type": "gpt2", "n_positions": 64})},
            ConfigError,
            "training.maxLength: 128 tokens are more than the model's context of 64: use at most",
            id="rows longer than the context of a GPT-2",
        ),
    ],
)
def test_a_model_that_lacks_something_is_refused(
    files: dict[str, str | None], error: type[LLMTrainError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        check_model(model(tmp_path, **files), spec())
    assert message in str(raised.value)


ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
ADAPTER_URI = "s3://runs/sft/adapter"


def evaluation(**evaluate: Any) -> RunSpec:
    """Returns the spec of an evaluation with an adapter."""
    return RunSpec.model_validate(
        {
            "stage": "Evaluate",
            "model": {"uri": "s3://models/tiny/", "adapterUri": ADAPTER_URI},
            "datasets": [{"uri": "s3://data/rows.jsonl", "format": "Alpaca"}],
            "evaluate": {"maxLength": 128, **evaluate},
            "output": {"uri": "s3://runs/evaluate/"},
        }
    )


def adapter(folder: Path, **files: str | None) -> Path:
    """Writes an adapter's files; a value of None leaves one out."""
    folder.mkdir()
    content: dict[str, str | None] = {
        "adapter_config.json": json.dumps(ADAPTER),
        "adapter_model.safetensors": WEIGHTS,
    }
    content |= {name.replace("__", "."): text for name, text in files.items()}
    for name, text in content.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_an_adapter_is_taken_with_the_tokenizer_of_its_base(tmp_path: Path) -> None:
    check_model(model(tmp_path), evaluation(), adapter(tmp_path / "adapter"))


def test_an_adapter_may_bring_the_chat_template_that_its_base_lacks(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", tokenizer__json="{}", chat_template__jinja="x")
    check_model(model(tmp_path, chat_template__jinja=None), evaluation(), folder)


def test_a_template_of_the_spec_counts(tmp_path: Path) -> None:
    folder = model(tmp_path, chat_template__jinja=None)
    check_model(folder, evaluation(chatTemplate="chatml"))


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        pytest.param(
            {"adapter_config__json": None},
            DataError,
            f"{ADAPTER_URI}: has no adapter_config.json",
            id="no configuration",
        ),
        pytest.param(
            {"adapter_model__safetensors": None},
            DataError,
            f"{ADAPTER_URI}: has no adapter_model.safetensors: name the folder of a LoRA adapter",
            id="no weights",
        ),
        pytest.param(
            {"adapter_model__safetensors": WEIGHTS[:-1]},
            DataError,
            f"{ADAPTER_URI}, adapter_model.safetensors: is cut or damaged",
            id="torn weights",
        ),
        pytest.param(
            {"adapter_config__json": '{"peft_type": "PROMPT_TUNING"}'},
            ConfigError,
            f"model.adapterUri: {ADAPTER_URI} is no LoRA adapter",
            id="another kind of adapter",
        ),
        pytest.param(
            {"adapter_config__json": json.dumps({**ADAPTER, "task_type": "SEQ_CLS"})},
            ConfigError,
            f"model.adapterUri: {ADAPTER_URI} is the adapter of a reward model",
            id="the adapter of a reward model",
        ),
        pytest.param(
            {"tokenizer__json": "{}"},
            ConfigError,
            f"model.uri: the tokenizer of {ADAPTER_URI} has no chat template, and"
            " s3://data/rows.jsonl has the format Alpaca, which is rendered by one: use an"
            " instruction model, set evaluate.chatTemplate",
            id="a tokenizer without a chat template",
        ),
    ],
)
def test_an_adapter_that_lacks_something_is_refused(
    files: dict[str, str | None], error: type[LLMTrainError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        check_model(model(tmp_path), evaluation(), adapter(tmp_path / "adapter", **files))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("files", "evaluate", "message"),
    [
        pytest.param(
            {"config__json": None, "adapter_config__json": "{}"},
            {},
            "model.uri: s3://models/tiny/ holds an adapter, not a model: name its base model here",
            id="an adapter in the place of its base",
        ),
        pytest.param(
            {"config__json": json.dumps({"architectures": ["LlamaForSequenceClassification"]})},
            {},
            "model.uri: s3://models/tiny/ is a LlamaForSequenceClassification, such as stage Reward"
            " makes, which writes no text",
            id="a reward model",
        ),
        pytest.param(
            {},
            {"maxLength": 512},
            "evaluate.maxLength: 512 tokens are more than the model's context of 256: use at most",
            id="rows longer than the context",
        ),
        pytest.param(
            {},
            {"predict": {"maxNewTokens": 129}},
            "evaluate.predict.maxNewTokens: 129 tokens after prompts of up to 128"
            " (evaluate.maxLength) are more than the model's context of 256: use at most 128",
            id="answers longer than the context",
        ),
        pytest.param(
            {},
            {"maxLength": 256, "predict": {}},
            "the model's context of 256: use a smaller evaluate.maxLength",
            id="no room for answers",
        ),
    ],
)
def test_a_model_that_cannot_be_measured_is_refused(
    files: dict[str, str | None], evaluate: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_model(model(tmp_path, **files), evaluation(**evaluate))
    assert message in str(raised.value)
