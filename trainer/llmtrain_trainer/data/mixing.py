"""How many rows of each data set are trained on where they have weights, and which. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import stream
from llmtrain_trainer.data.tokens import Account

_MOST_PASSES = 1000
"""Over one data set in an epoch; more is a slip, and would fill the memory."""


def counts(sizes: Sequence[int], weights: Sequence[float], *, to_the_last: bool) -> list[int]:
    """Returns how many rows of each data set make its share of all rows that of its weight.

    Args:
        sizes: Rows to train on in each data set; at least one.
        weights: What each is worth against the others.
        to_the_last: Go on until the last data set is used up, and repeat the others; else stop
            with the first.
    """
    passes = [size / weight for size, weight in zip(sizes, weights, strict=True)]
    total = max(passes) if to_the_last else min(passes)
    return [max(1, round(total * weight)) for weight in weights]


def units(account: Account, spec: RunSpec) -> list[int]:
    """Returns how many rows to train on each data set has; of running text, how many sequences."""
    if spec.stage != "Pretrain":
        return [dataset.train for dataset in account.datasets]
    length = spec.require_training().max_length
    return [stream.count_of(dataset.tokens, length) for dataset in account.datasets]


def drawn(account: Account, spec: RunSpec) -> list[int] | None:
    """Returns how many rows of each data set an epoch has; none where all of them are taken once.

    Of running text they are sequences of `training.maxLength` tokens.

    Raises:
        ConfigError: The weights repeat a data set without end.
        DataError: A data set with a weight has no rows to train on.
    """
    weights = [dataset.weight for dataset in spec.datasets if dataset.weight is not None]
    if not weights:
        return None
    sizes = units(account, spec)
    for dataset, size in zip(account.datasets, sizes, strict=True):
        if not size:
            raise DataError(
                dataset.uri,
                f"has a weight, but of its {dataset.rows} rows none is left to train on",
                "add rows, raise training.maxLength, or remove it",
            )
    to_the_last = spec.require_training().mixing == "AllExhausted"
    chosen = counts(sizes, weights, to_the_last=to_the_last)
    _check_passes(account, sizes, weights, chosen)
    return chosen


def _check_passes(
    account: Account, sizes: Sequence[int], weights: Sequence[float], chosen: Sequence[int]
) -> None:
    passes = [count / size for count, size in zip(chosen, sizes, strict=True)]
    if max(passes) <= _MOST_PASSES:
        return
    often = passes.index(max(passes))
    last = passes.index(min(passes))  # What AllExhausted waits for.
    taken, awaited = account.datasets[often], account.datasets[last]
    raise ConfigError(
        f"datasets[{often}].weight",
        f"with {weights[often]:g}, against {weights[last]:g} of {awaited.uri}, an epoch takes the"
        f" {sizes[often]} rows of {taken.uri} {passes[often]:.0f} times, which is more than"
        f" {_MOST_PASSES}",
        "bring the weights closer together, or set training.mixing: FirstExhausted",
    )


def rows(sizes: Sequence[int], chosen: Sequence[int], seed: int) -> list[int]:
    """Returns the numbers of the rows of an epoch, in the order in which they stand.

    Args:
        sizes: Rows of each data set; they stand one data set after the other.
        chosen: How many of each are taken: whole passes, and of the rest as many as are left.
        seed: Decides which.
    """
    numbers: list[int] = []
    first = 0
    for index, (size, count) in enumerate(zip(sizes, chosen, strict=True)):
        passes, rest = divmod(count, size)
        some = random.Random(f"{seed} {index}").sample(range(size), rest)
        numbers += sorted([*range(first, first + size)] * passes + [first + each for each in some])
        first += size
    return numbers


def summary(
    account: Account, spec: RunSpec, chosen: Sequence[int], *, epochs: float | None = None
) -> list[dict[str, str | int | float]]:
    """Returns what an epoch has of each data set, for the results.

    Args:
        account: The account of the rows.
        spec: The run's spec.
        chosen: What `drawn` says.
        epochs: Epochs trained, which say how often each data set was gone through; none for that.
    """
    name = "sequences" if spec.stage == "Pretrain" else "rows"
    told: list[dict[str, str | int | float]] = []
    for dataset, size, count in zip(account.datasets, units(account, spec), chosen, strict=True):
        passes = {"epochs": round(count / size, 4)}
        if epochs is not None:
            passes["epochs_trained"] = round(epochs * count / size, 4)
        told.append({"uri": dataset.uri, name: count, **passes})
    return told
