"""What the chain's models are worth, by plain transformers; imports nothing of llmtrain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import heldout

BATCH = 16
IGNORED = -100  # The label of a token that is not scored, as PyTorch's cross entropy has it.
CONFIDENCE = 1.96  # Standard errors on each side of a 95 % interval.


def load(folder: Path) -> tuple[Any, Any]:
    """Returns the model of a folder in fp32, and its tokenizer."""
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def windows_of(tokenizer: Any, texts: Sequence[str], length: int) -> list[list[int]]:
    """Returns the documents' tokens, each with the end-of-sequence token, in windows.

    A window begins with the last token of the one before, so that every token of a document but
    its first is predicted in just one of them.
    """
    windows = []
    for text in texts:
        tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        starts = range(0, max(len(tokens) - 1, 1), length - 1)
        windows += [tokens[start : start + length] for start in starts]
    return [window for window in windows if len(window) > 1]


def text_loss(model: Any, windows: Sequence[Sequence[int]]) -> float:
    """Returns the mean loss over all predicted tokens of all windows, in nats."""
    import torch

    total, count = 0.0, 0
    ordered = sorted(windows, key=len)  # Windows of one length need no filling.
    for start in range(0, len(ordered), BATCH):
        batch = [list(window) for window in ordered[start : start + BATCH]]
        tokens = sum(len(window) - 1 for window in batch)
        labels = torch.tensor(heldout.pad(batch, IGNORED))
        with torch.inference_mode():
            loss = model(torch.tensor(heldout.pad(batch, 0)), labels=labels).loss
        total += loss.item() * tokens
        count += tokens
    return total / count


def log_probabilities(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]]) -> list[float]:
    """Returns the log-probability of each row's whole answer, end of turn included."""
    import torch

    found: list[float] = []
    for start in range(0, len(rows), BATCH):
        pairs = [heldout.tokens_of(tokenizer, row) for row in rows[start : start + BATCH]]
        ids = torch.tensor(heldout.pad([prompt + answer for prompt, answer in pairs], 0))
        scored = torch.tensor(
            heldout.pad([[0] * len(prompt) + [1] * len(answer) for prompt, answer in pairs], 0)
        )
        with torch.inference_mode():
            logits = model(ids).logits[:, :-1]
        chances = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        found += (chances * scored[:, 1:]).sum(-1).tolist()
    return found


def rows_of(pairs: Sequence[dict[str, Any]], answer: str) -> Iterator[dict[str, str]]:
    """Yields the questions of preference pairs with their `chosen` or `rejected` answers."""
    for pair in pairs:
        yield {"instruction": pair["prompt"][0]["content"], "output": pair[answer][0]["content"]}


def margins(model: Any, tokenizer: Any, pairs: Sequence[dict[str, Any]]) -> list[float]:
    """Returns by how many nats the model finds each chosen answer likelier than the rejected."""
    chosen = log_probabilities(model, tokenizer, list(rows_of(pairs, "chosen")))
    rejected = log_probabilities(model, tokenizer, list(rows_of(pairs, "rejected")))
    return [good - bad for good, bad in zip(chosen, rejected, strict=True)]


def count_preferred(policy: Sequence[float], reference: Sequence[float]) -> int:
    """Returns in how many pairs DPO's reward of the chosen answer is higher than the other's.

    The reward is what training added to an answer's log-probability, so the margin of the
    reference is taken off that of the policy.
    """
    return sum(mine > before for mine, before in zip(policy, reference, strict=True))


def wilson_lower(successes: int, trials: int) -> float:
    """Returns the lower end of Wilson's 95 % interval for a share."""
    share, spread = successes / trials, CONFIDENCE**2 / trials
    centre = share + spread / 2
    deviation = CONFIDENCE * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return (centre - deviation) / (1 + spread)
