"""Makes the rows of SFT and DPO: questions about Python's functions, with right and wrong answers.

    PYTHONPATH=examples/demo python examples/chain/make_questions.py

The questions and answers are those of `make demo`, all of them this time. A pair for DPO has the
documentation of the function asked about as `chosen` and that of another function as `rejected`.
Some functions are held out: no run is trained on what they do, in whatever words it is asked.
"""

from __future__ import annotations

from typing import Any

import make_dataset
import places

HELD_OUT_ROWS = 300
# Of the rows that are trained on, each is rejected for this many others. With one alone, the model
# could learn by heart which answer is wrong instead of what makes it so.
TRAINING_REJECTIONS = 3


def split() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Returns the rows to train on and those held out; each order is by chance, yet fixed."""
    rows = make_dataset.make_rows()
    return rows[HELD_OUT_ROWS:], rows[:HELD_OUT_ROWS]


def make_pairs(rows: list[dict[str, str]], rejections: int) -> list[dict[str, Any]]:
    """Returns each row `rejections` times, each time with another row's answer as the wrong one.

    Every answer is `chosen` as often as it is `rejected`. So a model that only finds some answers
    better than others, whatever was asked, is right in half of the pairs.

    Raises:
        ValueError: There are too few rows to have that many wrong answers each.
    """
    if rejections >= len(rows):
        raise ValueError(f"{len(rows)} rows have no {rejections} wrong answers each")
    pairs = []
    for number in range(rejections):
        shift = (number + 1) * len(rows) // (rejections + 1)
        for row, other in zip(rows, rows[shift:] + rows[:shift], strict=True):
            pairs.append(to_pair(row["instruction"], row["output"], other["output"]))
    return pairs


def to_pair(question: str, right: str, wrong: str) -> dict[str, Any]:
    """Returns a row in the Preference format, as chats, so that the chat template applies."""
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": right}],
        "rejected": [{"role": "assistant", "content": wrong}],
    }


def main() -> None:
    """Writes both kinds of rows, to train on and held out."""
    train, held_out = split()
    make_dataset.write_rows(places.QUESTIONS, train)
    make_dataset.write_rows(places.QUESTIONS_HELD_OUT, held_out)
    make_dataset.write_rows(places.PAIRS, make_pairs(train, TRAINING_REJECTIONS))
    make_dataset.write_rows(places.PAIRS_HELD_OUT, make_pairs(held_out, 1))


if __name__ == "__main__":
    main()
