"""Each named chat template writes what its models know, and trains answers with their ends only."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.errors import ConfigError
from llmtrain_api.stages.sft import CHAT_TEMPLATES
from llmtrain_api.stages.tokenizer import TokenizerTraining
from llmtrain_trainer import worker
from llmtrain_trainer.data import templates
from llmtrain_trainer.data.chat import IGNORED, Encoder
from llmtrain_trainer.data.rows import Chat, Row
from llmtrain_trainer.stages import vocabulary

pytestmark = pytest.mark.torch

MARKS = sorted({mark for marks in templates._MARKS.values() for mark in marks})
TEXTS = ["USER: Human: Assistant: ASSISTANT: [INST] [/INST] ### Instruction: ### Response: hi so"]

SYSTEM = {"role": "system", "content": "Be brief."}
SHORT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
LONG = [
    SYSTEM,
    {"role": "user", "content": "Hi 👩‍👧"},
    {"role": "assistant", "content": "Ho 👩‍👧"},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": ""},
]


def make_tokenizer(**special: str) -> Any:
    """Returns a tokenizer of bytes, whose emoji are spread over several tokens."""
    tokens = {"eosToken": "</s>", "extra": MARKS, **special}
    settings = TokenizerTraining.model_validate(
        {"vocabSize": 400, "specialTokens": tokens, "chatTemplate": "None"}
    )
    tokenizer = vocabulary.train(iter(TEXTS), set("".join(TEXTS)), settings)
    return vocabulary.wrap(tokenizer, settings)


def with_template(name: str, **special: str) -> Any:
    tokenizer = make_tokenizer(**special)
    tokenizer.chat_template = templates.resolve(name, tokenizer)
    return tokenizer


def marked(tokenizer: Any, chat: Chat) -> str:
    """Returns the text of a chat as it is trained, with « and » around what the loss falls on."""
    row = Row("s3://data/a.jsonl, line 1", False, chat)
    (tokens,) = Encoder(tokenizer, all_tokens=False).encode([row])
    text, run, trained = "", list[int](), False
    for token, label in zip(tokens.input_ids, tokens.labels, strict=True):
        if (label != IGNORED) is not trained:
            text += tokenizer.decode(run) + ("»" if trained else "«")
            run, trained = [], not trained
        run.append(token)
    return f"{text}{tokenizer.decode(run)}{'»' if trained else ''}"


EXPECTED = {
    "chatml": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Ho<|im_end|>»\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi 👩‍👧<|im_end|>\n"
        "<|im_start|>assistant\n«Ho 👩‍👧<|im_end|>»\n<|im_start|>user\nSo?<|im_end|>\n"
        "<|im_start|>assistant\n«<|im_end|>»\n",
    ),
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Ho<|eot_id|>»",
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi 👩‍👧<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Ho 👩‍👧<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nSo?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«<|eot_id|>»",
    ),
    "qwen": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Ho<|im_end|>»\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi 👩‍👧<|im_end|>\n"
        "<|im_start|>assistant\n«Ho 👩‍👧<|im_end|>»\n<|im_start|>user\nSo?<|im_end|>\n"
        "<|im_start|>assistant\n«<|im_end|>»\n",
    ),
    "gemma": (
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Ho<end_of_turn>»\n",
        "<start_of_turn>user\nBe brief.\n\nHi 👩‍👧<end_of_turn>\n"
        "<start_of_turn>model\n«Ho 👩‍👧<end_of_turn>»\n<start_of_turn>user\nSo?<end_of_turn>\n"
        "<start_of_turn>model\n«<end_of_turn>»\n",
    ),
    "phi": (
        "<|user|>\nHi<|end|>\n<|assistant|>\n«Ho<|end|>»\n",
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi 👩‍👧<|end|>\n<|assistant|>\n«Ho 👩‍👧<|end|>»\n"
        "<|user|>\nSo?<|end|>\n<|assistant|>\n«<|end|>»\n",
    ),
    "mistral": (
        "[INST] Hi[/INST]« Ho</s>»",
        "[INST] Be brief.\n\nHi 👩‍👧[/INST]« Ho 👩‍👧</s>»[INST] So?[/INST]« </s>»",
    ),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately"
        " completes the request.\n\n### Instruction:\nHi\n\n### Response:\n«Ho</s>»\n\n",
        "Be brief.\n\n### Instruction:\nHi 👩‍👧\n\n### Response:\n«Ho 👩‍👧</s>»\n\n"
        "### Instruction:\nSo?\n\n### Response:\n«</s>»\n\n",
    ),
    "vicuna": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant"
        " gives helpful, detailed, and polite answers to the user's questions. USER: Hi"
        " ASSISTANT:« Ho</s>»",
        "Be brief. USER: Hi 👩‍👧 ASSISTANT:« Ho 👩‍👧</s>»USER: So? ASSISTANT:« </s>»",
    ),
    "HumanAssistant": (
        "Human: Hi\nAssistant:« Ho</s>»\n",
        "Be brief.\nHuman: Hi 👩‍👧\nAssistant:« Ho 👩‍👧</s>»\nHuman: So?\nAssistant:« </s>»\n",
    ),
}


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_template_trains_answers_and_their_ends(name: str) -> None:
    tokenizer = with_template(name)
    for messages, expected in zip((SHORT, LONG), EXPECTED[name], strict=True):
        assert marked(tokenizer, Chat(messages)) == expected
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert text == re.sub("[«»]", "", expected)
        asked = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        assert asked == re.sub("[«»]", "", expected.rpartition("«")[0])


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_the_mask_of_transformers_says_the_same(name: str) -> None:
    tokenizer = with_template(name)
    batch = tokenizer.apply_chat_template(
        [SHORT, LONG], return_dict=True, return_assistant_tokens_mask=True
    )
    rows = [Row("here", False, Chat(messages)) for messages in (SHORT, LONG)]
    for number, tokens in enumerate(Encoder(tokenizer, all_tokens=False).encode(rows)):
        assert tokens.input_ids == batch["input_ids"][number]
        mask = [int(label != IGNORED) for label in tokens.labels]
        assert mask == batch["assistant_masks"][number]


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_text_begins_as_the_tokenizer_begins_it(name: str) -> None:
    tokenizer = with_template(name, bosToken="<s>")
    assert marked(tokenizer, Chat(SHORT)) == "<s>" + EXPECTED[name][0]


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def call(city: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


def test_calls_of_tools_are_trained_and_their_answers_are_not() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [call("Köln"), call("Ulm")]},
        {"role": "tool", "content": "yes"},
        {"role": "tool", "content": "no"},
        {"role": "assistant", "content": "In Köln."},
    ]
    expected = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou"
        " are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",'
        ' "properties": {}}}}\n</tools>\n\nFor each function call, return a json object with'
        " function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n«<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>\n<tool_call>\n'
        '{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call><|im_end|>»\n'
        "<|im_start|>user\n<tool_response>\nyes\n</tool_response>\n<tool_response>\nno\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n«In Köln.<|im_end|>»\n"
    )
    tokenizer = with_template("qwen")
    assert marked(tokenizer, Chat(messages, [WEATHER])) == expected
    rows = [Row("here", False, Chat(messages, tools)) for tools in ([WEATHER], None)]
    with_tools, without = Encoder(tokenizer, all_tokens=False).encode(rows)
    assert len(with_tools.input_ids) > len(without.input_ids)


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        pytest.param(
            Chat([SHORT[0], {"role": "assistant", "content": "", "tool_calls": [call("Ulm")]}]),
            "its chat template does not show calls of tools, which here has",
            id="calls",
        ),
        pytest.param(
            Chat(SHORT, [WEATHER]), "its chat template does not show tools, which", id="tools"
        ),
    ],
)
def test_tools_that_a_template_would_pass_over_are_refused(chat: Chat, message: str) -> None:
    for name in set(CHAT_TEMPLATES) - {"qwen"}:
        encoder = Encoder(with_template(name), all_tokens=False)
        with pytest.raises(ConfigError, match=message):
            encoder.encode([Row("here", False, chat)])


def test_a_template_of_ones_own_is_taken_as_it_is() -> None:
    own = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '##提问:\n' + m.content + '\n\n' }}"
        "{% else %}{{ '##回答:\n' }}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
        "{{ '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '##回答:\n' }}{% endif %}"
    )
    tokenizer = with_template(own)
    assert tokenizer.chat_template == own
    assert marked(tokenizer, Chat(SHORT)) == "##提问:\nHi\n\n##回答:\n«Ho</s>»\n\n"


def test_a_model_is_trained_and_saved_with_the_template_and_the_mix(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Two data sets of ShareGPT, on a model without a chat template of its own."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    talk = [{"from": "human", "value": "red?"}, {"from": "gpt", "value": "blue"}]
    data: list[jobs.Rows] = [
        [{"conversations": talk, "system": str(number)} for number in range(20)],
        [{"chat": talk, "system": str(number)} for number in range(4)],
    ]
    datasets = [
        {"uri": "s3://data/a.jsonl", "format": "ShareGPT", "weight": 0.5, "maxSamples": 12},
        {
            "uri": "s3://data/b.jsonl",
            "format": "ShareGPT",
            "columns": {"messages": "chat"},
            "weight": 0.5,
        },
    ]
    changes = {
        "datasets": datasets,
        "sft": {"chatTemplate": "vicuna"},
        "training.maxSteps": 2,
        "training.mixing": "AllExhausted",
    }
    folder = jobs.write_job(tmp_path / "work", model, changes, data=data)
    assert worker.main([str(folder)]) == 0
    numbers = json.loads((folder / "final" / "results" / "all_results.json").read_text())
    assert (numbers["rows"], numbers["data_train"]) == (16, 16)
    assert numbers["data_mixing"] == [
        {"uri": "s3://data/a.jsonl", "rows": 12, "epochs": 1.0, "epochs_trained": 0.3333},
        {"uri": "s3://data/b.jsonl", "rows": 12, "epochs": 3.0, "epochs_trained": 1.0},
    ]
    assert numbers["epoch"] == 2 * 4 / 24
    saved = (folder / "final" / "adapter" / "chat_template.jinja").read_text()
    assert saved == templates.named("vicuna")


def test_a_template_whose_tokens_are_not_there_is_refused() -> None:
    tokenizer = make_tokenizer(extra=["<|im_start|>"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"sft.chatTemplate: .* no token <\|im_end\|>, which"):
        templates.resolve("qwen", tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        templates.resolve("alpaca", tokenizer)


def test_a_template_that_is_no_jinja_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sft.chatTemplate: line 2: "):
        templates.resolve("{% if x %}\n{% endfor %}", make_tokenizer())
