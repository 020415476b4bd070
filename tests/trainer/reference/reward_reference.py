"""Plain TRL on the same rows: what llmtrain's Reward must equal, bit for bit.

Usage: reward_reference.py MODEL OUTPUT_FOLDER ROWS_JSONL
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]

model, out, rows = sys.argv[1:]
parts: dict[bool, list[dict[str, object]]] = {False: [], True: []}  # held out or not
for line in Path(rows).read_text().splitlines():
    row = json.loads(line)
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
    parts[int.from_bytes(digest[:8], "big") < 0.2 * 2**64].append(row)

# fmt: off
arguments = RewardConfig(
    out, use_cpu=True, bf16=False, activation_checkpointing=False, report_to=[], disable_tqdm=True,
    center_rewards_coefficient=0.01, disable_dropout=False, max_length=48, max_steps=54,
    per_device_train_batch_size=2, per_device_eval_batch_size=64, learning_rate=5e-3,
    gradient_accumulation_steps=4 // int(os.environ.get("WORLD_SIZE", "1")),
    lr_scheduler_type="cosine", warmup_steps=5, weight_decay=0.01, max_grad_norm=0.5,
    optim="adamw_torch", adam_beta2=0.98, seed=7, logging_steps=1, logging_nan_inf_filter=False,
    eval_strategy="steps", eval_steps=18, save_strategy="no", ddp_find_unused_parameters=False,
)
lora = LoraConfig(
    r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="SEQ_CLS"
)
set_seed(7)  # For the weights of the new head.
base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype="float32")
trainer = RewardTrainer(
    base, args=arguments, peft_config=lora, processing_class=AutoTokenizer.from_pretrained(model),
    train_dataset=Dataset.from_list(parts[False]), eval_dataset=Dataset.from_list(parts[True]),
)
# fmt: on
trainer.train()
if trainer.is_world_process_zero():
    Path(out, "history.json").write_text(json.dumps(trainer.state.log_history))
    trainer.save_model(str(Path(out, "adapter")))
