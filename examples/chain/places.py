"""Where the chain keeps what it makes on this machine, and where that lies in S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folders

HOME = folders.CACHE / "chain"
DATA = HOME / "data"
CORPUS = DATA / "corpus.jsonl"
QUESTIONS = DATA / "questions.jsonl"
PAIRS = DATA / "pairs.jsonl"
TRAINED_ON = (CORPUS, QUESTIONS, PAIRS)
"""These are uploaded."""
CORPUS_HELD_OUT = DATA / "corpus-heldout.jsonl"
QUESTIONS_HELD_OUT = DATA / "questions-heldout.jsonl"
PAIRS_HELD_OUT = DATA / "pairs-heldout.jsonl"
"""The three that are held out never leave this machine, so no run can have seen them."""
DATA_PREFIX = "chain/"  # In the bucket of data.

STAGES = ("tokenizer", "pretrain", "sft", "dpo")
"""In the order of their runs: each needs what the one before it has made."""

RESULTS = HOME / "results"
TABLE = HOME / "table.md"
PLOT = HOME / "plot.png"
NUMBERS = HOME / "numbers.json"


def run_name(stage: str) -> str:
    """Returns the name of a stage's run."""
    return f"chain-{stage}"


def output_of(stage: str) -> str:
    """Returns the prefix of a stage's results in the bucket of runs."""
    return f"{run_name(stage)}/"


def model_of(stage: str) -> Path:
    """Returns the folder of this machine into which a stage's model is downloaded."""
    return RESULTS / run_name(stage) / "model"


def log_of(stage: str) -> Path:
    """Returns the file of this machine into which a stage's training log is downloaded."""
    return RESULTS / run_name(stage) / "results" / "trainer_log.jsonl"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
