"""The other side of `sft_throughput`: the same rows and settings in a plain TRL script.

python benchmarks/bare_trl_sft.py MODEL ROWS_JSONL OUTPUT_FOLDER SETTINGS_JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer


def main() -> None:
    """Trains, and writes seconds and tokens to OUTPUT_FOLDER/speed.json."""
    model, data, out, settings = sys.argv[1:]
    given = json.loads(settings)
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    arguments = SFTConfig(
        out,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
        packing=True,
        shuffle_dataset=True,
        max_length=given["max_length"],
        max_steps=given["steps"],
        per_device_train_batch_size=given["micro_batch"],
        gradient_accumulation_steps=given["accumulation"],
        learning_rate=given["learning_rate"],
        optim="adamw_torch",
        logging_steps=given["logging_steps"],
        save_strategy="steps",
        save_steps=given["save_steps"],
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    seconds = trainer.train().metrics["train_runtime"]
    tokens = next(line["num_tokens"] for line in trainer.state.log_history if "num_tokens" in line)
    tokens = max(line.get("num_tokens", tokens) for line in trainer.state.log_history)
    Path(out, "speed.json").write_text(json.dumps({"seconds": seconds, "tokens": tokens}))


if __name__ == "__main__":
    main()
