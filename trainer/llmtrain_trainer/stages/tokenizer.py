"""Stage `Tokenizer`: a vocabulary of its own for the texts that a model will be trained on.

The texts are read three times: to count them, to learn from them, and to measure on those held out.
It is one process without a device and without checkpoints: the launcher ends it when it is told to
stop, since there is nothing to save, and a next attempt begins anew. The steps of its training log
are documents.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrain_api.errors import DataError
from llmtrain_api.exits import ExitClass
from llmtrain_api.layout import ALL_RESULTS, MODEL
from llmtrain_api.progress import Resolved
from llmtrain_api.runfile import spec_hash
from llmtrain_api.stages.tokenizer import TokenizerTraining
from llmtrain_trainer import workdir
from llmtrain_trainer.data import texts
from llmtrain_trainer.stages import ancestry, vocabulary
from llmtrain_trainer.stages.quality import DIFFICULT, Quality, measure
from llmtrain_trainer.stages.telling import Telling
from llmtrain_trainer.stages.tokenizer_card import Source, write_card
from llmtrain_trainer.workdir import Job, write_atomically

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

_MEASURED_WITHOUT_HELD_OUT = 1000  # Documents, of those learned from, where none is held out.
_LIBRARIES = ("tokenizers", "transformers")


@dataclass
class Survey:
    """What there is to learn from."""

    sources: list[Source]
    characters: set[str] = field(default_factory=set)
    """All that occur in the documents to learn from."""

    def total(self, name: str) -> int:
        """Returns one of the counts, summed over all data sets."""
        return sum(getattr(source, name) for source in self.sources)


def run(job: Job, folder: Path) -> ExitClass:
    """Makes a tokenizer as `job` says.

    Returns:
        `SUCCESS`.

    Raises:
        ConfigError: The vocabulary is too small for the texts.
        DataError: A row has no text, or there is none at all.
    """
    begin = time.perf_counter()
    settings = job.run.spec.tokenizer_training
    if settings is None:  # A rule of the spec holds that; mypy cannot know.
        raise ValueError("stage Tokenizer has no tokenizerTraining")
    resolved = Resolved(device="cpu", spec_hash=spec_hash(job.run.spec))
    write_atomically(folder / workdir.RESOLVED, json.dumps(resolved.to_dict()))
    out = folder / workdir.FINAL
    telling = Telling(folder)
    survey = _survey(job, telling)
    tokenizer = _train(job, settings, survey, telling)
    vocabulary.wrap(tokenizer, settings).save_pretrained(out / MODEL)
    results = _results(job, settings, survey, out / MODEL, telling)
    results["train_runtime"] = round(time.perf_counter() - begin, 3)
    telling.say("Finishing", "writing the results")
    _write(job, survey, results, out)
    return ExitClass.SUCCESS


def _survey(job: Job, telling: Telling) -> Survey:
    """Reads all documents and counts them."""
    telling.say("Loading", "counting the documents")
    survey = Survey([Source(file.uri, file.sha256) for file in job.dataset_files])
    done = 0
    for index, source in enumerate(survey.sources):
        for document in texts.of_dataset(job.dataset_files, job.run.spec, index):
            done += 1
            if document.held_out:
                source.held_out += 1
            else:
                source.train += 1
                source.size += len(document.text.encode())
                survey.characters.update(document.text)
            if telling.due():
                telling.say("Loading", f"counting the documents ({done:,} so far)")
    if not survey.total("size"):
        raise DataError(
            ", ".join(source.uri for source in survey.sources[:3]),
            "the documents to learn from hold no text",
            "upload text, or correct spec.datasets",
        )
    return survey


def _documents(job: Job, *, held_out: bool) -> Iterator[str]:
    """Yields the texts of one side of the split."""
    for document in texts.documents(job.dataset_files, job.run.spec):
        if document.held_out == held_out:
            yield document.text


def _train(job: Job, settings: TokenizerTraining, survey: Survey, telling: Telling) -> Tokenizer:
    """Returns the trained tokenizer."""
    total = survey.total("train")
    megabytes = survey.total("size") / 1e6
    telling.say("Training", f"reading {total:,} documents ({megabytes:,.1f} MB)")
    telling.begin()

    def learned_from() -> Iterator[str]:
        for done, text in enumerate(_documents(job, held_out=False), start=1):
            yield text
            if telling.due() or done == total:
                telling.log(done, total)
        # From here on the library does not come back until it is done.
        telling.say("Training", f"learning up to {settings.vocab_size:,} tokens")

    tokenizer = vocabulary.train(learned_from(), survey.characters, settings)
    if (size := tokenizer.get_vocab_size()) < settings.vocab_size:
        logger.warning(
            "the vocabulary has %d tokens, not %d: the documents hold no more that occur often"
            " enough",
            size,
            settings.vocab_size,
        )
    return tokenizer


def _results(
    job: Job, settings: TokenizerTraining, survey: Survey, folder: Path, telling: Telling
) -> dict[str, Any]:
    """Returns what `all_results.json` holds, measured with the tokenizer as it is on disk.

    Raises:
        RuntimeError: Text does not come back from byte-level BPE: a defect that must not pass.
    """
    from transformers import AutoTokenizer  # Late: it takes seconds.

    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = survey.total("held_out")
    telling.say("Evaluating", "on the documents held out" if held_out else "on documents read")
    sample = _documents(job, held_out=held_out > 0)
    if not held_out:
        sample = islice(sample, _MEASURED_WITHOUT_HELD_OUT)
    total = Quality()
    for part in measure(tokenizer, sample):
        total += part
        if telling.due():
            telling.say("Evaluating", f"{total.texts:,} of {held_out:,} documents held out")
    difficult = sum(measure(tokenizer, DIFFICULT), Quality())
    lost = total.texts - total.exact + difficult.texts - difficult.exact
    if settings.algorithm == "BPE" and lost:
        raise RuntimeError(f"{lost} texts do not come back from the tokenizer as they were")
    return {
        "algorithm": settings.algorithm,
        "vocab_size": len(tokenizer),
        "documents": survey.total("train"),
        "bytes": survey.total("size"),
        "characters": len(survey.characters),
        "measured_on": "documents held out" if held_out else "documents learned from",
        "measured_documents": total.texts,
        "measured_bytes": total.size,
        "measured_tokens": total.tokens,
        "bytes_per_token": total.bytes_per_token,
        "unknown_rate": total.unknown_rate,
        "exact_round_trips": total.exact,
        "exact_round_trip_share": total.exact_share,
        "difficult_texts": difficult.texts,
        "difficult_exact_round_trips": difficult.exact,
        "tokenizer_sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
    }


def _write(job: Job, survey: Survey, results: dict[str, Any], out: Path) -> None:
    """Writes results and card, and last of all the mark that all is there."""
    path = out / ALL_RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    versions = {library: version(library) for library in _LIBRARIES}
    lineage = ancestry.with_run([], job.run, survey.sources, results["tokenizer_sha256"])
    ancestry.write(lineage, out / MODEL)
    shown = ancestry.describe(lineage, [])
    card = write_card(job.run.name, job.run.spec, survey.sources, results, versions, shown)
    (out / MODEL / "README.md").write_text(card, encoding="utf-8")
    (out / workdir.DONE).touch()
    logger.info(
        "tokenizer: %d tokens, %.3f bytes per token, sha256 %s",
        results["vocab_size"],
        results["bytes_per_token"] or 0.0,
        results["tokenizer_sha256"],
    )
