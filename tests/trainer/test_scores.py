"""BLEU and ROUGE of generated answers, and the numbers of an evaluation."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest

from llmtrain_trainer.data.answers import DROPPED, MEASURED, ROWS, TRUNCATED, pieces
from llmtrain_trainer.stages import evaluated, scores
from llmtrain_trainer.stages.evaluated import Answer, Outcome, Scored


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("The cat, the CAT!", ["the", "cat", "the", "cat"], id="words of English"),
        pytest.param("für Köln, 3.5", ["für", "köln", "3", "5"], id="words with umlauts"),
        pytest.param("Привет, мир", ["привет", "мир"], id="words of another script"),
        pytest.param(
            "我来到北京清华大学。", ["我", "来到", "北京", "清华大学"], id="Chinese, by jieba"
        ),
        pytest.param("Python 很好", ["python", "很", "好"], id="Chinese with a word of English"),
        pytest.param(" \n…", [], id="no words"),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert scores.words(text) == expected


@pytest.mark.parametrize(
    ("predicted", "wanted", "expected"),
    [
        pytest.param("a b c d", "a b c d", (1, 1, 1), id="the same"),
        pytest.param("x y", "a b", (0, 0, 0), id="nothing in common"),
        # Three of four words of each; one pair of three; the longest row in order is a b d.
        pytest.param("a b d e", "a b c d", (3 / 4, 1 / 3, 3 / 4), id="some in common"),
        # 2 of 2 words said, 2 of 4 wanted: 2 * 1 * 0.5 / 1.5; pairs 1 of 1 and 1 of 3.
        pytest.param("a b", "a b c d", (2 / 3, 1 / 2, 2 / 3), id="too short"),
        pytest.param("", "a b", (0, 0, 0), id="nothing said"),
    ],
)
def test_rouge(predicted: str, wanted: str, expected: tuple[float, ...]) -> None:
    assert scores.rouge(predicted, wanted) == pytest.approx(expected)


def test_bleu_is_that_of_the_corpus() -> None:
    assert scores.bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(100)
    # Half of the words, and of the runs of two, three and four words, are right.
    same, other = "one two three four five", "six seven eight nine ten"
    assert scores.bleu([same, "a b c d e"], [same, other]) == pytest.approx(50)


def test_chinese_is_compared_by_characters() -> None:
    assert scores.bleu(["我来到北京"], ["我来到北京"]) == pytest.approx(100)


def test_the_summary_has_four_decimals_and_names_of_llama_factory() -> None:
    rouges = [(1.0, 0.5, 1 / 3), (0.0, 0.0, 0.0)]
    found = scores.summary(["a b c d", ""], ["a b c d", "x"], rouges)
    assert found["predict_rouge-1"] == 50.0
    assert found["predict_rouge-2"] == 25.0
    assert found["predict_rouge-l"] == 16.6667
    assert set(found) == {f"predict_{n}" for n in ("bleu-4", "rouge-1", "rouge-2", "rouge-l")}


@pytest.mark.parametrize(
    ("ids", "longest", "expected"),
    [
        pytest.param([1, 2, 3], 8, [[1, 2, 3]], id="a short text is one piece"),
        pytest.param([1, 2, 3, 4, 5], 3, [[1, 2, 3], [3, 4, 5]], id="pieces share a token"),
        pytest.param([1, 2, 3, 4], 3, [[1, 2, 3], [3, 4]], id="the last piece is shorter"),
        pytest.param([1], 3, [], id="one token has no token to predict it from"),
        pytest.param([], 3, [], id="no text"),
    ],
)
def test_each_token_of_a_text_is_predicted_once(
    ids: list[int], longest: int, expected: list[list[int]]
) -> None:
    found = [list(piece) for piece in pieces(ids, longest)]
    assert found == expected
    assert [token for piece in found for token in piece[1:]] == ids[1:]


def test_tokens_have_the_same_weight_whoever_measured_them() -> None:
    rows = [Scored((0, n, 0), 0.1 * (n + 1), n + 1, n) for n in range(7)]
    counts = [Counter({ROWS: 9, MEASURED: 7, DROPPED: 2, TRUNCATED: 1})]
    one = evaluated.collect(["s3://a"], counts, [Outcome(rows, 7, 2.0)])
    two = evaluated.collect(
        ["s3://a"], counts, [Outcome(rows[1::2], 3, 2.0), Outcome(rows[::2], 4, 1.0)]
    )
    assert {**one, "eval_steps_per_second": 2.0} == two
    assert one["eval_loss"] == pytest.approx(0.1)
    assert one["eval_perplexity"] == pytest.approx(math.exp(0.1))
    assert one["eval_mean_token_accuracy"] == sum(range(7)) / 28
    assert (one["eval_samples"], one["eval_tokens"]) == (7, 28)
    assert (one["rows"], one["data_dropped"], one["data_truncated"]) == (9, 2, 1)


def test_a_perplexity_beyond_all_numbers_is_still_json() -> None:
    counts = [Counter({ROWS: 1, MEASURED: 1})]
    found = evaluated.collect(["s3://a"], counts, [Outcome([Scored((0, 0, 0), 1e3, 1, 0)], 1)])
    assert json.loads(json.dumps(found, allow_nan=False))["eval_perplexity"] == "inf"


def test_each_of_several_data_sets_has_its_numbers() -> None:
    rows = [Scored((0, 0, 0), 2.0, 2, 1), Scored((1, 0, 0), 6.0, 2, 0)]
    counts = [Counter({ROWS: 1, MEASURED: 1}), Counter({ROWS: 2, MEASURED: 1, DROPPED: 1})]
    found = evaluated.collect(["s3://a", "s3://b"], counts, [Outcome(rows, 1, 1.0)])
    assert found["eval_loss"] == 2.0
    assert [(d["uri"], d["eval_loss"], d["rows"]) for d in found["datasets"]] == [
        ("s3://a", 1.0, 1),
        ("s3://b", 3.0, 2),
    ]


def test_answers_are_scored_where_there_are_some() -> None:
    answer = Answer("q", "a b c d", "a b c d", (1.0, 1.0, 1.0))
    rows = [Scored((0, 0, 0), 1.0, 1, 1, answer), Scored((0, 1, 0), 1.0, 1, 1)]
    found = evaluated.collect(
        ["s3://a"], [Counter({ROWS: 2, MEASURED: 2})], [Outcome(rows, 2, 1.0, 4.0)]
    )
    assert found["predict_bleu-4"] == 100.0
    assert found["predict_samples"] == 1
    assert found["predict_samples_per_second"] == 0.25
