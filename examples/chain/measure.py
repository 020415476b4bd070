"""Measures what each stage of the chain is worth, by plain transformers; nothing of llmtrain.

    PYTHONPATH=examples/demo python examples/chain/measure.py

Reads the results that `transfer.py down` has brought, and the rows that never left this machine.
Writes the table, the plot and the numbers beside them, and fails where one of the claims does not
hold.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import bigram
import heldout
import places
import report
import scores


def measure_text() -> dict[str, Any]:
    """Returns the numbers of tokenizer and pretraining, on the held-out documents."""
    model, tokenizer = scores.load(places.model_of("pretrain"))
    train, held_out = (
        [row["text"] for row in places.read_rows(path)]
        for path in (places.CORPUS, places.CORPUS_HELD_OUT)
    )
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in held_out]
    context = model.config.max_position_embeddings
    windows = scores.windows_of(tokenizer, held_out, context)
    loss, k = bigram.held_out_loss(
        scores.windows_of(tokenizer, train, context), windows, len(tokenizer)
    )
    return {
        "bytes_per_token": sum(len(text.encode()) for text in held_out) / sum(map(len, encoded)),
        "round_trip": [tokenizer.decode(tokens) for tokens in encoded] == held_out,
        "bigram_loss": loss,
        "bigram_k": k,
        "pretrain_loss": scores.text_loss(model, windows),
    }


def measure_answers() -> dict[str, Any]:
    """Returns the numbers of SFT and DPO, on the held-out questions and pairs."""
    base, sft, dpo = (scores.load(places.model_of(stage)) for stage in places.STAGES[1:])
    questions = places.read_rows(places.QUESTIONS_HELD_OUT)
    pairs = places.read_rows(places.PAIRS_HELD_OUT)
    before, after = (scores.margins(*model, pairs) for model in (sft, dpo))
    preferred = scores.count_preferred(after, before)
    return {
        "sft_base_loss": heldout.mean_loss(*base, questions),
        "sft_loss": heldout.mean_loss(*sft, questions),
        "dpo_pairs": len(pairs),
        "dpo_accuracy": preferred / len(pairs),
        "dpo_accuracy_lower": scores.wilson_lower(preferred, len(pairs)),
        # Beside the claim: how often the right answer is simply the likelier one.
        "sft_likelier": sum(margin > 0 for margin in before) / len(pairs),
        "dpo_likelier": sum(margin > 0 for margin in after) / len(pairs),
    }


def first_loss(log: report.Log) -> float:
    """Returns the loss of the first step, which is that of the weights before it."""
    first = next(line for line in log if "loss" in line)
    if first["current_steps"] != 1:
        sys.exit("measure: the log of chain-dpo begins after step 1: set loggingSteps: 1")
    return first["loss"]


def main() -> int:
    """Prints and writes table, plot and numbers; returns 1 where a claim does not hold."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    logs = {stage: places.read_rows(places.log_of(stage)) for stage in places.STAGES[1:]}
    numbers = {**measure_text(), **measure_answers(), "dpo_first_loss": first_loss(logs["dpo"])}
    rows = report.claims(numbers)
    text = report.table(rows)
    places.NUMBERS.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    places.TABLE.write_text(text, encoding="utf-8")
    report.plot(logs, numbers, places.PLOT)
    print(f"\n{text}")
    for path in (places.TABLE, places.PLOT, places.NUMBERS):
        print(path)
    failed = [f"{row.stage}, {row.what}" for row in rows if not row.holds]
    if failed:
        print(f"\nchain: this does not hold: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
