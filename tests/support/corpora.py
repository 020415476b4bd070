"""Small texts, and what makes a small spec one of pretraining."""

from __future__ import annotations

import random

import specs

SIZES = {
    "hiddenSize": 32,
    "numHiddenLayers": 2,
    "numAttentionHeads": 2,
    "maxPositionEmbeddings": 64,
}
NEW = {
    "stage": "Pretrain",
    "model": specs.REMOVE,
    "tuning": specs.REMOVE,
    "architecture": {"family": "gpt2", **SIZES},  # It has dropout.
    "tokenizer": {"uri": "s3://models/tokenizer/"},
    "datasets": [{"uri": "s3://data/text.jsonl", "format": "Text"}],
    "evaluation": {"fraction": 0.2, "everySteps": 4},
    "training.maxLength": 48,
}
CONTINUED = {
    "stage": "Pretrain",
    "datasets": NEW["datasets"],
    "evaluation": NEW["evaluation"],
    "training.maxLength": 48,
}


def documents(count: int, seed: int = 3) -> list[dict[str, str]]:
    """Returns texts of one to forty words, each word often followed by the same next one."""
    chance = random.Random(seed)
    words = ["red", "blue", "green", "small", "large", "round", "quick", "slow"]
    rows = []
    for number in range(count):
        place = chance.randrange(len(words))
        text = [str(number)]
        for _ in range(chance.randint(1, 40)):
            place = (place + chance.choice([1, 1, 1, 3])) % len(words)
            text.append(words[place])
        rows.append({"text": " ".join(text)})
    return rows
