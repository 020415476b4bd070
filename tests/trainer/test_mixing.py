"""Rows of each data set by its weight: how many, which, and always the same ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jobs
import pytest

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.run import RunSpec
from llmtrain_trainer.data import mixing
from llmtrain_trainer.data.tokens import Account, DatasetAccount


@pytest.mark.parametrize(
    ("sizes", "weights", "to_the_last", "expected"),
    [
        pytest.param(
            [100, 100], [3, 1], False, [100, 33], id="the first ends with the large share"
        ),
        pytest.param([100, 100], [3, 1], True, [300, 100], id="the last ends with the small share"),
        pytest.param([10, 1000], [0.5, 0.5], False, [10, 10], id="as few as the small one has"),
        pytest.param([10, 1000], [0.5, 0.5], True, [1000, 1000], id="as many as the large one has"),
        pytest.param([100, 300], [1, 3], False, [100, 300], id="shares as they are"),
        pytest.param([7], [0.2], True, [7], id="one data set alone is taken once"),
        pytest.param([1, 1000], [1000, 1], False, [1, 1], id="no data set is left out"),
    ],
)
def test_shares_are_those_of_the_weights(
    sizes: list[int], weights: list[float], to_the_last: bool, expected: list[int]
) -> None:
    assert mixing.counts(sizes, weights, to_the_last=to_the_last) == expected


def test_every_row_is_taken_as_often_as_any_other_but_one() -> None:
    taken = Counter(mixing.rows([10, 4], [25, 3], seed=1))
    first = [taken[number] for number in range(10)]
    second = [taken[number] for number in range(10, 14)]
    assert (sum(first), set(first)) == (25, {2, 3})
    assert (sum(second), set(second)) == (3, {0, 1})


def test_the_same_seed_takes_the_same_rows() -> None:
    assert mixing.rows([100], [50], seed=1) == mixing.rows([100], [50], seed=1)
    assert mixing.rows([100], [50], seed=1) != mixing.rows([100], [50], seed=2)


def spec(*weights: float | None, **training: Any) -> RunSpec:
    datasets = [
        {"uri": f"s3://data/{number}.jsonl", "format": "Alpaca", "weight": weight}
        for number, weight in enumerate(weights)
    ]
    changes = {f"training.{name}": value for name, value in training.items()}
    return RunSpec.model_validate(jobs.small_spec({"datasets": datasets, **changes}))


def account(*sizes: int) -> Account:
    datasets = [
        DatasetAccount(uri=f"s3://data/{number}.jsonl", sha256="", rows=9, train=size)
        for number, size in enumerate(sizes)
    ]
    return Account(key="", datasets=datasets)


def test_what_is_drawn_follows_the_spec_and_is_told() -> None:
    assert mixing.drawn(account(10, 20), spec(None, None)) is None
    assert mixing.drawn(account(10, 20), spec(1, 1)) == [10, 10]
    chosen = mixing.drawn(account(10, 20), spec(1, 1, mixing="AllExhausted"))
    assert chosen == [20, 20]
    assert mixing.summary(account(10, 20), spec(1, 1), chosen) == [
        {"uri": "s3://data/0.jsonl", "rows": 20, "epochs": 2.0},
        {"uri": "s3://data/1.jsonl", "rows": 20, "epochs": 1.0},
    ]


def test_how_often_a_data_set_was_gone_through_is_told() -> None:
    told = mixing.summary(account(10, 20), spec(1, 1), [20, 20], epochs=1.5)
    assert [each["epochs_trained"] for each in told] == [3.0, 1.5]


def running_text(*tokens: int) -> tuple[Account, RunSpec]:
    """Returns sources of so many tokens, of equal weight, cut into sequences of 8."""
    datasets = [
        {"uri": f"s3://data/{number}.jsonl", "format": "Text", "weight": 1}
        for number in range(len(tokens))
    ]
    changes = {"stage": "Pretrain", "datasets": datasets, "training.maxLength": 8}
    accounts = [
        DatasetAccount(uri=dataset["uri"], sha256="", rows=9, train=9, tokens=count)
        for dataset, count in zip(datasets, tokens, strict=True)
    ]
    return Account(key="", datasets=accounts), RunSpec.model_validate(jobs.small_spec(changes))


def test_running_text_is_mixed_by_its_tokens() -> None:
    sources, run = running_text(17, 8001)
    assert mixing.units(sources, run) == [2, 1000]
    assert mixing.drawn(sources, run) == [2, 2]
    assert mixing.summary(sources, run, [2, 2]) == [
        {"uri": "s3://data/0.jsonl", "sequences": 2, "epochs": 1.0},
        {"uri": "s3://data/1.jsonl", "sequences": 2, "epochs": 0.002},
    ]


def test_running_text_of_one_token_cannot_have_a_share() -> None:
    with pytest.raises(DataError, match=r"0.jsonl: has a weight, but of its 9 rows none is left"):
        mixing.drawn(*running_text(1, 8001))


def test_a_data_set_without_rows_cannot_have_a_share() -> None:
    with pytest.raises(DataError, match=r"1.jsonl: has a weight, but of its 9 rows none is left"):
        mixing.drawn(account(10, 0), spec(1, 1))


def test_a_data_set_is_not_repeated_without_end() -> None:
    far_apart = spec(1, 1e-6, mixing="AllExhausted")
    with pytest.raises(ConfigError) as raised:
        mixing.drawn(account(1000, 1000), far_apart)
    assert str(raised.value) == (
        "datasets[0].weight: with 1, against 1e-06 of s3://data/1.jsonl, an epoch takes the 1000"
        " rows of s3://data/0.jsonl 1000000 times, which is more than 1000: bring the weights"
        " closer together, or set training.mixing: FirstExhausted"
    )
    assert mixing.drawn(account(1000, 1000), spec(1, 1e-6)) == [1000, 1]


@pytest.mark.parametrize(
    ("weights", "refused"),
    [
        pytest.param((0.5, 500), False, id="a thousand passes"),
        pytest.param((0.5, 501), True, id="more than that"),
    ],
)
def test_a_thousand_passes_are_the_most(weights: tuple[float, float], refused: bool) -> None:
    run = spec(*weights, mixing="AllExhausted")
    if refused:
        with pytest.raises(ConfigError, match=r"^datasets\[1\].weight: .* 1002 times"):
            mixing.drawn(account(10, 10), run)
    else:
        assert mixing.drawn(account(10, 10), run) == [10, 10_000]
