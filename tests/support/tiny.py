"""A tiny Llama with a chat template, and rows to train it on: made anew, the same each time."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 256
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def alpaca_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Returns `count` distinct questions with their answers."""
    chance = random.Random(seed)
    words = ["red", "blue", "green", "small", "large", "round", "quick", "slow"]
    rows = []
    for number in range(count):
        picked = chance.sample(words, 4)
        question = f"Sort these words ({number}): {' '.join(picked)}"
        rows.append({"instruction": question, "input": "", "output": " ".join(sorted(picked))})
    return rows


def preference_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Returns questions with the answer wanted and the same words the wrong way round."""
    return [
        {
            "prompt": [{"role": "user", "content": row["instruction"]}],
            "chosen": [{"role": "assistant", "content": row["output"]}],
            "rejected": [
                {"role": "assistant", "content": " ".join(reversed(row["output"].split()))}
            ],
        }
        for row in alpaca_rows(count, seed)
    ]


def judged_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Returns questions with a good answer, and every second one with a bad one."""
    return [
        {
            "prompt": row["prompt"],
            "completion": row["chosen" if number % 2 else "rejected"],
            "label": bool(number % 2),
        }
        for number, row in enumerate(preference_rows(count, seed))
    ]


def build_model(folder: Path) -> None:
    """Writes a Llama of 0.2 million parameters, from a fixed seed, with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [row["instruction"] + " " + row["output"] for row in alpaca_rows(200, seed=1)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=SPECIAL_TOKENS, initial_alphabet=sorted(alphabet)
    )
    tokenizer.train_from_iterator([*words, "system user assistant"], trainer)
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Returns rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload(s3: Any) -> None:
    """Puts the model to s3://models/tiny/ and the rows to s3://data/tiny/train.jsonl, once."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    marker = f"tiny-versions/{version}"
    if s3.list_objects_v2(Bucket="models", Prefix=marker).get("Contents"):
        return
    with tempfile.TemporaryDirectory() as folder:
        build_model(Path(folder))
        for file in sorted(Path(folder).iterdir()):
            s3.put_object(Bucket="models", Key=f"tiny/{file.name}", Body=file.read_bytes())
    s3.put_object(Bucket="data", Key="tiny/train.jsonl", Body=jsonl(alpaca_rows(200)))
    s3.put_object(Bucket="models", Key=marker, Body=b"uploaded\n")
