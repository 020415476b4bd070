"""How near a generated answer comes to the one that is wanted: BLEU-4 and ROUGE. Pure."""

from __future__ import annotations

import functools
import logging
import math
import re
import tempfile
from collections.abc import Sequence
from typing import Any

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"[^\W_]+")  # Letters and digits of any script.
_KINDS = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}
"""LLaMA-Factory's name of a score, and rouge-score's."""

Rouge = tuple[float, ...]
"""F-measures from 0 to 1, in the order of `rouge-1`, `rouge-2` and `rouge-l`."""


def words(text: str) -> list[str]:
    """Returns the words of a text in lower case: by jieba where there is Chinese in it."""
    lower = text.lower()
    if not _CHINESE.search(lower):
        return _WORD.findall(lower)
    return [word for word in _segmenter().cut(lower) if _WORD.search(word)]


@functools.cache
def _segmenter() -> Any:
    import jieba  # Late: it reads a dictionary.

    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as folder:  # Else it leaves a cache for all users to read.
        segmenter.tmp_dir = folder
        segmenter.initialize()
    return segmenter


class _Words:
    """`words`, as rouge-score takes it."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # Late: it brings nltk.

    return RougeScorer(list(_KINDS.values()), tokenizer=_Words())


def rouge(predicted: str, wanted: str) -> Rouge:
    """Returns how many words, pairs of words, and words in the same order two answers share."""
    scores = _scorer().score(wanted, predicted)
    return tuple(float(scores[kind].fmeasure) for kind in _KINDS.values())


def bleu(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """Returns sacrebleu's corpus BLEU-4, from 0 to 100; Chinese is compared by characters."""
    from sacrebleu.metrics.bleu import BLEU

    chinese = any(_CHINESE.search(text) for text in wanted)
    scorer: Any = BLEU(tokenize="zh" if chinese else "13a")
    return float(scorer.corpus_score(list(predicted), [list(wanted)]).score)


def summary(
    predicted: Sequence[str], wanted: Sequence[str], rouges: Sequence[Rouge]
) -> dict[str, float]:
    """Returns the scores of all answers by LLaMA-Factory's names, from 0 to 100, with 4 decimals.

    BLEU is of the whole corpus, ROUGE is the mean over the answers.
    """
    means = {
        name: 100 * math.fsum(scores) / len(rouges)
        for name, scores in zip(_KINDS, zip(*rouges, strict=True), strict=True)
    }
    scores = {"bleu-4": bleu(predicted, wanted), **means}
    return {f"predict_{name}": round(score, 4) for name, score in scores.items()}
