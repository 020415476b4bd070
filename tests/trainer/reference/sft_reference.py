"""Plain TRL on the same rows: what llmtrain's SFT must equal, bit for bit.

Usage: sft_reference.py MODEL OUTPUT_FOLDER ALPACA_JSONL MESSAGES_JSONL
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>
{% endgeneration %}{% else %}{{ message['content'] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

model, out, alpaca, messages = sys.argv[1:]
parts: dict[bool, list[dict[str, object]]] = {False: [], True: []}  # held out or not
for path in (alpaca, messages):
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
        chat = row.get("messages") or [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
        held_out = int.from_bytes(digest[:8], "big") < 0.2 * 2**64
        parts[held_out].append({"messages": chat})

tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.chat_template = TEMPLATE
# fmt: off
arguments = SFTConfig(
    out, use_cpu=True, bf16=False, activation_checkpointing=False, report_to=[], disable_tqdm=True,
    assistant_only_loss=True, packing=True, shuffle_dataset=True, max_length=96, max_steps=54,
    per_device_train_batch_size=2, per_device_eval_batch_size=32, learning_rate=5e-3,
    gradient_accumulation_steps=4 // int(os.environ.get("WORLD_SIZE", "1")),
    lr_scheduler_type="cosine", warmup_steps=5, weight_decay=0.01, max_grad_norm=0.5,
    optim="adamw_torch", adam_beta2=0.98, seed=7, logging_steps=1, logging_nan_inf_filter=False,
    eval_strategy="steps", eval_steps=18, save_strategy="no", ddp_find_unused_parameters=False,
)
lora = LoraConfig(
    r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
)
trainer = SFTTrainer(
    AutoModelForCausalLM.from_pretrained(model, dtype="float32"), arguments, peft_config=lora,
    processing_class=tokenizer, train_dataset=Dataset.from_list(parts[False]),
    eval_dataset=Dataset.from_list(parts[True]),
)
# fmt: on
trainer.train()
if trainer.is_world_process_zero():
    Path(out, "history.json").write_text(json.dumps(trainer.state.log_history))
    trainer.save_model(str(Path(out, "adapter")))
