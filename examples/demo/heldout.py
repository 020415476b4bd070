"""Measures what training changed by plain transformers and peft; imports nothing of llmtrain.

    python examples/demo/heldout.py

The adapter comes from S3; the rows are those that the run never saw. The loss is the mean over the
tokens of the answers, end of turn included. Both answers are greedy.
"""

import json
import os
import shutil
import textwrap
import warnings
from pathlib import Path
from typing import Any

import folders

ANSWER_TOKENS = 48
BATCH = 8


def download_adapter() -> Path:
    """Downloads the run's adapter into the cache folder and returns that."""
    client = folders.s3_client()
    shutil.rmtree(folders.ADAPTER, ignore_errors=True)
    folders.ADAPTER.mkdir(parents=True)
    for key in folders.keys_under(client, folders.RUNS_BUCKET, f"{folders.OUTPUT}adapter/"):
        client.download_file(folders.RUNS_BUCKET, key, str(folders.ADAPTER / Path(key).name))
    return folders.ADAPTER


def tokens_of(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], list[int]]:
    """Returns the tokens up to where the answer starts, and those of the answer."""
    question = [{"role": "user", "content": row["instruction"]}]
    answer = [{"role": "assistant", "content": row["output"]}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(question + answer, return_dict=False)
    return prompt, whole[len(prompt) :]


def mean_loss(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> float:
    """Returns the mean loss over all tokens of all answers, in nats."""
    import torch

    total, count = 0.0, 0
    for start in range(0, len(rows), BATCH):
        pairs = [tokens_of(tokenizer, row) for row in rows[start : start + BATCH]]
        # What follows the answer changes nothing before it, so the filling needs no mask.
        ids = pad([prompt + answer for prompt, answer in pairs], 0)
        labels = pad([[-100] * len(prompt) + answer for prompt, answer in pairs], -100)
        with torch.inference_mode():
            loss = model(torch.tensor(ids), labels=torch.tensor(labels)).loss
        tokens = sum(len(answer) for _, answer in pairs)
        total += loss.item() * tokens
        count += tokens
    return total / count


def pad(lists: list[list[int]], value: int) -> list[list[int]]:
    """Returns the lists, filled up to the length of the longest."""
    longest = max(len(each) for each in lists)
    return [each + [value] * (longest - len(each)) for each in lists]


def answer_to(model: Any, tokenizer: Any, row: dict[str, str]) -> str:
    """Returns the greedy answer to the row's question; `[...]` where it went on and on."""
    import torch

    prompt, _ = tokens_of(tokenizer, row)
    asked = torch.tensor([prompt])
    out = model.generate(
        asked, attention_mask=torch.ones_like(asked), max_new_tokens=ANSWER_TOKENS, do_sample=False
    )[0, len(prompt) :]
    text: str = tokenizer.decode(out, skip_special_tokens=True).strip()
    return text if out[-1] == tokenizer.eos_token_id else text + " [...]"


def show_answer(title: str, text: str) -> None:
    """Prints an answer as an indented paragraph."""
    print(f"  {title}")
    for line in text.splitlines():
        print(textwrap.fill(line, 96, initial_indent="    ", subsequent_indent="    "))


def main() -> None:
    """Prints the held-out loss and an answer, without the adapter and with it."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    warnings.simplefilter("ignore", FutureWarning)  # What libraries tell each other.
    import peft
    import torch
    import transformers

    rows = [json.loads(line) for line in folders.HELD_OUT_ROWS.read_text("utf-8").splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders.MODEL)
    base = transformers.AutoModelForCausalLM.from_pretrained(folders.MODEL, dtype=torch.float32)
    before = mean_loss(base, tokenizer, rows), answer_to(base, tokenizer, rows[0])
    tuned = peft.PeftModel.from_pretrained(base, download_adapter())
    after = mean_loss(tuned, tokenizer, rows), answer_to(tuned, tokenizer, rows[0])

    print(f"Held-out loss, {len(rows)} rows, by transformers {transformers.__version__}", end=" ")
    print(f"and peft {peft.__version__}:")
    print(f"  before training   {before[0]:.3f}")
    print(f"  after training    {after[0]:.3f}   ({after[0] / before[0] - 1:+.0%})")
    print(f"\n{rows[0]['instruction']}")
    show_answer("before training:", before[1])
    show_answer("after training:", after[1])
    show_answer("its documentation, which the run never saw:", rows[0]["output"])


if __name__ == "__main__":
    main()
