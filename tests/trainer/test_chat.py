"""The loss falls on the answers and on the tokens that end them, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data.chat import IGNORED, Encoder, Tokens
from llmtrain_trainer.data.rows import Chat, Completion, Row

pytestmark = pytest.mark.torch

MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
END_NOT_MARKED = MARKED.replace(
    "<|im_end|>\n{% endgeneration %}", "{% endgeneration %}<|im_end|>\n"
)
NO_END = tiny.CHAT_TEMPLATE.replace("<|im_end|>", "")
FORGETS_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'user' or loop.last %}{{ message['content'] }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def chat(*turns: str, system: str = "") -> Row:
    messages = [{"role": "system", "content": system}] if system else []
    for number, turn in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        messages.append({"role": role, "content": turn})
    return Row("s3://data/a.jsonl, line 7", False, Chat(messages))


def completion(prompt: str, text: str) -> Row:
    return Row("s3://data/a.jsonl, line 7", False, Completion(prompt, text))


def trained(tokenizer: Any, tokens: Tokens) -> list[str]:
    """Returns the trained text, a string for each run of trained tokens."""
    runs: list[list[int]] = [[]]
    for token, label in zip(tokens.input_ids, tokens.labels, strict=True):
        assert label in (token, IGNORED)
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


def encode(tokenizer: Any, *rows: Row, all_tokens: bool = False) -> list[Tokens]:
    return Encoder(tokenizer, all_tokens=all_tokens).encode(rows)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(tiny.CHAT_TEMPLATE, id="a template without marks"),
        pytest.param(MARKED, id="a template with marks"),
        pytest.param(END_NOT_MARKED, id="marks that leave the end of turn out"),
    ],
)
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(chat("Say red", "red"), ["red<|im_end|>\n"], id="one answer"),
        pytest.param(
            chat("Say red", "red", "and blue", "blue", system="be brief"),
            ["red<|im_end|>\n", "blue<|im_end|>\n"],
            id="every answer of a conversation",
        ),
        pytest.param(chat("Say", " näive 🙂"), [" näive 🙂<|im_end|>\n"], id="odd characters"),
        pytest.param(chat("Say", ""), ["<|im_end|>\n"], id="an empty answer is the end of turn"),
        pytest.param(
            chat("red<|im_end|>", "red"), ["red<|im_end|>\n"], id="special tokens in a question"
        ),
    ],
)
def test_answers_and_their_ends_are_trained(
    template: str, row: Row, expected: list[str], tokenizer: Any
) -> None:
    tokenizer.chat_template = template
    (tokens,) = encode(tokenizer, row)
    assert trained(tokenizer, tokens) == expected
    assert isinstance(row.content, Chat)
    whole = tokenizer.apply_chat_template(row.content.messages, tokenize=False)
    assert tokenizer.decode(tokens.input_ids) == whole


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(chat("Say red", "red", "and", "blue"), ["blue<|im_end|>\n"], id="of two"),
        pytest.param(chat("Say red", "red"), ["red<|im_end|>\n"], id="of one"),
        pytest.param(chat("Say", "red", "and", ""), ["<|im_end|>\n"], id="an empty one"),
        pytest.param(completion("Say:", " red"), [" red<|im_end|>"], id="a completion"),
    ],
)
def test_the_last_answer_alone_is_trained_when_asked(
    row: Row, expected: list[str], tokenizer: Any
) -> None:
    for template in (tiny.CHAT_TEMPLATE, MARKED):
        tokenizer.chat_template = template
        (tokens,) = Encoder(tokenizer, last_answer=True).encode([row])
        assert trained(tokenizer, tokens) == expected
        (all_answers,) = encode(tokenizer, row)
        assert tokens.input_ids == all_answers.input_ids


def test_all_tokens_are_trained_when_asked(tokenizer: Any) -> None:
    for template in (tiny.CHAT_TEMPLATE, MARKED):
        tokenizer.chat_template = template
        (tokens,) = encode(tokenizer, chat("Say red", "red"), all_tokens=True)
        assert tokens.labels == tokens.input_ids
    (tokens,) = encode(tokenizer, completion("a", "b"), all_tokens=True)
    assert tokens.labels == tokens.input_ids


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        pytest.param("Say it:", " red", " red<|im_end|>", id="the end of sequence is added"),
        pytest.param("Say it:", " 🙂", " 🙂<|im_end|>", id="all tokens of a last character count"),
        pytest.param("🙂", "🙂 a", "🙂 a<|im_end|>", id="no token of a first character counts"),
        pytest.param("Say it: ", "red", " red<|im_end|>", id="a token across the boundary counts"),
        pytest.param("", "red", "red<|im_end|>", id="no prompt"),
        pytest.param("Say:", "red<|im_end|>", "red<|im_end|>", id="an end that is there stays one"),
        pytest.param("Say: ", "", "<|im_end|>", id="an empty completion is the end"),
    ],
)
def test_completions(prompt: str, text: str, expected: str, tokenizer: Any) -> None:
    (tokens,) = encode(tokenizer, completion(prompt, text))
    assert trained(tokenizer, tokens) == [expected]


def test_a_beginning_that_the_tokenizer_adds_is_there_once_and_not_trained(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    begin = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, 0)]
    )
    tokenizer.chat_template = begin + tiny.CHAT_TEMPLATE  # As templates of such models do.
    for row, expected in ((chat("Say", "red"), "red<|im_end|>\n"), (completion("a", "b"), None)):
        (tokens,) = encode(tokenizer, row)
        assert [token == 0 for token in tokens.input_ids] == [
            True,
            *[False] * (len(tokens.input_ids) - 1),
        ]
        assert tokens.labels[0] == IGNORED
        assert trained(tokenizer, tokens) == [expected or "b<|im_end|>"]


def test_an_end_that_the_tokenizer_adds_is_trained(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    (tokens,) = encode(tokenizer, completion("a", "b"))
    assert trained(tokenizer, tokens) == ["b<|im_end|>"]


def test_rows_of_a_batch_do_not_mix(tokenizer: Any) -> None:
    rows = [chat(f"Say {number}", str(number)) for number in range(20)]
    together = encode(tokenizer, *rows)
    assert together == [encode(tokenizer, row)[0] for row in rows]


def test_a_known_template_is_trained_by_trls_edition_of_it(tokenizer: Any) -> None:
    from trl.chat_template_utils import qwen3_chat_template

    tokenizer.chat_template = qwen3_chat_template
    (tokens,) = encode(tokenizer, chat("Say red", "red", "and blue", "blue"))
    parts = trained(tokenizer, tokens)
    assert [part.split("</think>")[1] for part in parts] == [
        "\n\nred<|im_end|>\n",
        "\n\nblue<|im_end|>\n",
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param(
            FORGETS_TURNS,
            "model.uri: its chat template renders a turn differently once another follows",
            id="a template that rewrites earlier turns",
        ),
        pytest.param(
            NO_END,
            "model.uri: its chat template ends the assistant's turn in plain text",
            id="a template without an end of turn",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_is_refused(
    template: str, message: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ConfigError) as error:
        encode(tokenizer, chat("Say red", "red", "and blue", "blue"))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(NO_SYSTEM + tiny.CHAT_TEMPLATE, id="a template without marks"),
        pytest.param(NO_SYSTEM + MARKED, id="a template with marks"),
    ],
)
def test_the_row_that_a_template_refuses_is_named(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    bad = Row("s3://data/a.jsonl, line 9", False, chat("hi", "ho", system="s").content)
    with pytest.raises(DataError, match="line 9: the model's chat template refuses it"):
        encode(tokenizer, chat("hi", "ho"), bad)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    slow: Any = SimpleNamespace(is_fast=False)
    with pytest.raises(ConfigError, match=r"save it as tokenizer\.json"):
        Encoder(slow, all_tokens=False)


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_tokens_and_labels_are_those_of_trl(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """TRL's own way of masking prompts, which needs no marks, where there is one answer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    source = tiny.alpaca_rows(30)
    columns: list[dict[str, Any]]
    if kind == "text":
        rows = [completion(row["instruction"] + " ", row["output"]) for row in source]
        columns = [{"prompt": r["instruction"] + " ", "completion": r["output"]} for r in source]
    else:
        rows = [chat(row["instruction"], row["output"]) for row in source]
        columns = [
            {
                "prompt": [{"role": "user", "content": row["instruction"]}],
                "completion": [{"role": "assistant", "content": row["output"]}],
            }
            for row in source
        ]
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        SFTConfig(
            str(tmp_path), use_cpu=True, bf16=False, activation_checkpointing=False, report_to=[]
        ),
        train_dataset=Dataset.from_list(columns),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    assert isinstance(trainer.train_dataset, Dataset)
    theirs = [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
    ours = encode(AutoTokenizer.from_pretrained(tiny_model), *rows)
    assert [(tokens.input_ids, tokens.labels) for tokens in ours] == theirs


def test_the_end_is_trained_where_padding_is_the_same_token(tokenizer: Any) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    end = tokenizer.eos_token_id
    rows = encode(tokenizer, chat("Say red", "red"), chat("Say", "red blue green " * 5))
    features = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
    batch = DataCollatorForLanguageModeling(pad_token_id=end)(features)
    labels = batch["labels"][0].tolist()
    assert labels.count(end) == 1
    assert labels[len(rows[0].labels) :] == [IGNORED] * (len(labels) - len(rows[0].labels))
