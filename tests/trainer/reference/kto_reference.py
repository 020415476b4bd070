"""Plain TRL on the same rows: what llmtrain's KTO must equal, bit for bit.

Usage: kto_reference.py MODEL OUTPUT_FOLDER ROWS_JSONL
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer  # type: ignore[attr-defined]

model, out, rows = sys.argv[1:]
parts: dict[bool, list[dict[str, object]]] = {False: [], True: []}  # held out or not
for line in Path(rows).read_text().splitlines():
    row = json.loads(line)
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
    parts[int.from_bytes(digest[:8], "big") < 0.2 * 2**64].append(row)

# fmt: off
arguments = KTOConfig(
    out, use_cpu=True, bf16=False, activation_checkpointing=False, report_to=[], disable_tqdm=True,
    beta=0.2, desirable_weight=1.2, disable_dropout=False, max_length=48, max_steps=54,
    per_device_train_batch_size=2, per_device_eval_batch_size=64, learning_rate=5e-3,
    gradient_accumulation_steps=4 // int(os.environ.get("WORLD_SIZE", "1")),
    lr_scheduler_type="cosine", warmup_steps=5, weight_decay=0.01, max_grad_norm=0.5,
    optim="adamw_torch", adam_beta2=0.98, seed=7, logging_steps=1, logging_nan_inf_filter=False,
    eval_strategy="steps", eval_steps=18, save_strategy="no", ddp_find_unused_parameters=False,
)
trainer = KTOTrainer(  # All weights; TRL loads the reference from where the model came from.
    AutoModelForCausalLM.from_pretrained(model, dtype="float32"), args=arguments,
    processing_class=AutoTokenizer.from_pretrained(model),
    train_dataset=Dataset.from_list(parts[False]).shuffle(seed=7),
    eval_dataset=Dataset.from_list(parts[True]),
)
# fmt: on
trainer.train()
if trainer.is_world_process_zero():
    Path(out, "history.json").write_text(json.dumps(trainer.state.log_history))
    trainer.save_model(str(Path(out, "model")))
