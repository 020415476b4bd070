"""Plain transformers on the same text: what llmtrain's pretraining must equal, bit for bit.

Usage: pretrain_reference.py TOKENIZER OUTPUT_FOLDER JSONL TXT
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as hf

LENGTH = 48
PADDING = {"input_ids": 0, "labels": -100, "shift_labels": -100, "position_ids": 0}
tokenizer = hf.AutoTokenizer.from_pretrained(sys.argv[1])
out, jsonl, txt = map(Path, sys.argv[2:])
texts = [json.loads(row)["text"] for row in jsonl.read_text().splitlines()]
streams: dict[bool, list[tuple[int, int]]] = {False: [], True: []}  # Held out: token, position
for text in texts + txt.read_text().splitlines():
    digest = hashlib.sha256(json.dumps({"text": text}).encode()).digest()
    ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    held_out = int.from_bytes(digest[:8], "big") < 0.2 * 2**64
    streams[held_out] += [(token, place) for place, token in enumerate(ids)]


def sequences(stream: list[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
    tokens, places = torch.tensor([*stream, (-100, 0)]).T
    ids, following, positions = (x.split(LENGTH) for x in (tokens[:-1], tokens[1:], places[:-1]))
    here = [part.minimum(torch.arange(len(part))) for part in positions]
    parts = zip(ids, ids, following, here, strict=True)
    return [dict(zip(PADDING, part, strict=True)) for part in parts]


def collate(parts: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    pad = torch.nn.utils.rnn.pad_sequence
    return {name: pad([p[name] for p in parts], True, fill) for name, fill in PADDING.items()}


# fmt: off
arguments = hf.TrainingArguments(
    str(out), use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False,
    max_steps=54, per_device_train_batch_size=2, per_device_eval_batch_size=256, learning_rate=5e-3,
    gradient_accumulation_steps=4 // int(os.environ.get("WORLD_SIZE", "1")),
    lr_scheduler_type="cosine", warmup_steps=5, weight_decay=0.01, max_grad_norm=0.5, seed=7,
    optim="adamw_torch", adam_beta2=0.98, logging_steps=1, logging_nan_inf_filter=False,
    eval_strategy="steps", eval_steps=18, save_strategy="no", ddp_find_unused_parameters=False)
rows = -(-len(tokenizer) // 64) * 64
sizes: Any = {"vocab_size": rows, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
hf.set_seed(7)
data: Any = {"train_dataset": sequences(streams[False]), "eval_dataset": sequences(streams[True])}
trainer = hf.Trainer(hf.GPT2LMHeadModel(hf.GPT2Config(**sizes)), arguments, collate, **data)
# fmt: on
trainer.train()
if trainer.is_world_process_zero():
    (out / "history.json").write_text(json.dumps(trainer.state.log_history))
    trainer.save_model(str(out / "model"))
