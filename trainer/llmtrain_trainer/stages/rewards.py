"""What the preference stages log beside the loss: rewards, margins, and how often they are right.

Names are TRL's. DPO and KTO: `rewards/chosen` is beta times how much more likely the better answers
have become than the reference has them, `rewards/margins` what that is above the worse ones, and
`rewards/accuracies` the share of pairs in which it is above. Reward: `mean_reward`, `margin`,
`accuracy`. Of held-out rows each begins with `eval_`.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmtrain_trainer.stages.results import History

_ACCURACY = "rewards/accuracies"
_NAMES = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    _ACCURACY,
    "logps/chosen",
    "logps/rejected",
    "kl",
    "mean_reward",
    "min_reward",
    "max_reward",
    "margin",
    "accuracy",
)


def pick(logs: Mapping[str, float]) -> dict[str, float]:
    """Returns what a log of transformers says of rewards; of an SFT run that is nothing.

    `accuracy`, LLaMA-Factory's name for `rewards/accuracies`, stands beside it.
    """
    found = {
        name: logs[name]
        for prefix in ("", "eval_")
        for name in (prefix + each for each in _NAMES)
        if name in logs
    }
    for prefix in ("", "eval_"):
        if prefix + _ACCURACY in found:
            found[f"{prefix}accuracy"] = found[prefix + _ACCURACY]
    return found


def last(history: History) -> dict[str, float]:
    """Returns the rewards of the last training log that has some."""
    logs = [pick(line) for line in history if "loss" in line]
    return next((found for found in reversed(logs) if found), {})
