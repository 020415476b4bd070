"""The sequences of an epoch by weight: each as often as it should be, none of two sources."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from llmtrain_trainer.data import shares
from llmtrain_trainer.data.chat import IGNORED
from llmtrain_trainer.data.stream import Stream, StreamWriter, count_of


@pytest.mark.parametrize(
    ("size", "count"),
    [(1, 1), (1, 7), (10, 3), (10, 10), (10, 25), (7, 6), (1000, 999), (1000, 1), (3, 3000)],
)
@pytest.mark.parametrize("seed", [0, 42])
def test_every_sequence_is_taken_as_often_as_any_other_but_one(
    size: int, count: int, seed: int
) -> None:
    often = Counter(shares.taken(index, size, count, seed) for index in range(count))
    assert sum(often.values()) == count
    assert set(often) <= set(range(size))
    assert {often[number] for number in range(size)} <= {count // size, -(-count // size)}


def test_a_part_of_a_pass_is_spread_over_the_source() -> None:
    chosen = sorted(shares.taken(index, 1000, 100, seed=1) for index in range(100))
    gaps = {later - earlier for earlier, later in itertools.pairwise(chosen)}
    assert gaps == {10}


def test_the_seed_says_which() -> None:
    first, again, other = (
        [shares.taken(i, 1000, 10, seed) for i in range(10)] for seed in (1, 1, 2)
    )
    assert first == again != other


def write(folder: Path, sources: list[list[list[int]]]) -> tuple[Stream, list[int]]:
    """Returns a stream of the documents of some sources, and how many tokens each has."""
    with StreamWriter(folder, "it", 60_000) as writer:
        for source in sources:
            for document in source:
                writer.add(document)
    return Stream(folder, "it"), [sum(map(len, source)) for source in sources]


@pytest.mark.parametrize("seed", range(10))
def test_no_token_is_lost_or_overwritten_at_any_boundary(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    numbers = iter(range(60_000))  # Every token is another one.
    sources = [
        [[next(numbers) for _ in range(chance.randint(1, 30))] for _ in range(chance.randint(2, 9))]
        for _ in range(3)
    ]
    stream, sizes = write(tmp_path, sources)
    length = chance.choice([1, 2, 7, 16, 1000])
    passes = [1, 2, 3]
    counts = [count_of(size, length) * often for size, often in zip(sizes, passes, strict=True)]
    mixed = shares.mix(stream, length, isolate=True, sizes=sizes, counts=counts, seed=seed)
    assert len(mixed) == sum(counts)
    targets: Counter[int] = Counter()
    for index in range(len(mixed)):
        sequence = mixed[index]
        known = sequence["targets"] != IGNORED
        targets.update(sequence["targets"][known].tolist())
        follows = sequence["input_ids"][known] + 1 == sequence["targets"][known]
        assert follows.all(), "what follows a token is the token after it"
    for often, source in zip(passes, sources, strict=True):
        flat = [token for document in source for token in document]
        assert [targets[token] for token in flat] == [0] + [often] * (len(flat) - 1)


def test_a_sequence_has_tokens_of_one_source_only(tmp_path: Path) -> None:
    stream, sizes = write(tmp_path, [[[1] * 10], [[2] * 21]])
    mixed = shares.mix(stream, 8, isolate=False, sizes=sizes, counts=[2, 3], seed=0)
    kinds = [set(mixed[index]["input_ids"].tolist()) for index in range(len(mixed))]
    assert kinds == [{1}, {1}, {2}, {2}, {2}]
    assert [len(mixed[index]["input_ids"]) for index in range(5)] == [8, 2, 8, 8, 5]


def test_there_is_nothing_before_the_first_or_after_the_last(tmp_path: Path) -> None:
    stream, sizes = write(tmp_path, [[[1, 2, 3]]])
    mixed = shares.mix(stream, 2, isolate=False, sizes=sizes, counts=[1], seed=0)
    for index in (-1, 1):
        with pytest.raises(IndexError):
            mixed[index]
