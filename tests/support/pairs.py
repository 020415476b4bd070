"""Pairs and judged answers, and what makes a small spec one of a preference stage."""

from __future__ import annotations

from typing import Any

URI = "s3://data/rows.jsonl"
FORMATS = {"DPO": "Preference", "KTO": "KTO", "Reward": "Preference"}
SYSTEM = {"role": "system", "content": "be brief"}
USER = {"role": "user", "content": "hi"}
GOOD = {"role": "assistant", "content": "ho"}
BAD = {"role": "assistant", "content": "go away"}
CHAT = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
TEXT = {"prompt": "2 + 2 = ", "chosen": "4", "rejected": "5"}
MARK = {"prompt": [USER], "completion": [GOOD], "label": True}


def changes(stage: str, **more: Any) -> dict[str, Any]:
    """Returns what makes `small_spec` one of a preference stage."""
    dataset = {"uri": URI, "format": FORMATS[stage]}
    return {"stage": stage, "datasets": [dataset], "tuning.lora.dropout": 0, **more}
