"""Stage `Evaluate`: a model, or a model with an adapter, is measured on rows; nothing is trained.

Each process has the whole model and its share of the rows; only numbers and answers are exchanged,
once, at the end. There are no checkpoints: a run that was stopped begins anew. The steps of its
training log are the batches of the first process, which has as many as the others.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
import transformers

from llmtrain_api.errors import DataError
from llmtrain_api.exits import ExitClass
from llmtrain_api.layout import ALL_RESULTS
from llmtrain_api.progress import Resolved
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import spec_hash
from llmtrain_trainer import workdir
from llmtrain_trainer.data.answers import DROPPED, ROWS, Measured, Share
from llmtrain_trainer.failures import local_rank_of_process, rank_of_process
from llmtrain_trainer.stages import evaluated, scores
from llmtrain_trainer.stages.devices import Device, Precision, choose_precision, find_device
from llmtrain_trainer.stages.evaluated import Answer, Outcome, Scored
from llmtrain_trainer.stages.loading import (
    check_embeddings,
    load_model,
    load_tokenizer,
    put_adapter,
)
from llmtrain_trainer.stages.measuring import Measuring, batches
from llmtrain_trainer.stages.telling import Telling
from llmtrain_trainer.workdir import Job, write_atomically

logger = logging.getLogger(__name__)

PREDICTIONS = "results/generated_predictions.jsonl"
"""The answers, by the name that LLaMA-Factory gives them."""

_PATIENCE = timedelta(days=1)  # Processes end at different times; a lost one breaks the line.
_SHOWN = 3  # Answers in the log.
_T = TypeVar("_T")


def run(job: Job, folder: Path) -> ExitClass:
    """Measures as `job` says, in this process.

    Returns:
        `SUCCESS`.

    Raises:
        LLMTrainError: What the user must mend.
    """
    spec = job.run.spec
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    telling = Telling(folder) if rank_of_process() == 0 else None
    _say(telling, "Loading", "reading and tokenising the rows")
    tokenizer = load_tokenizer(job)
    share = Share(job, tokenizer, rank_of_process(), processes)
    rows = list(share.read())
    counts = evaluated.added(_everywhere(share.counts))
    _check_left(spec, counts)
    _say(telling, "Loading", "loading the model")
    model = _load(job, share.largest_id, folder)
    measuring = Measuring(model, tokenizer, spec.require_evaluate(), share.turn_end)
    outcome = _measure(spec, measuring, tokenizer, rows, telling)
    outcomes = _at_the_first(outcome)
    if telling is not None:
        telling.say("Finishing", "writing the results")
        numbers = evaluated.collect([d.uri for d in spec.datasets], counts, outcomes)
        telling.log(
            max(outcome.batches, 1), max(outcome.batches, 1), eval_loss=numbers["eval_loss"]
        )
        _write(numbers, evaluated.in_order(outcomes), folder / workdir.FINAL)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return ExitClass.SUCCESS


def _say(telling: Telling | None, activity: workdir.ActivityName, message: str) -> None:
    if telling is not None:
        telling.say(activity, message)


def _everywhere(value: _T) -> list[_T]:
    """Returns the value of each process, in all of them."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _at_the_first(value: _T) -> list[_T]:
    """Returns the value of each process in the first one, and its own in the others."""
    if not torch.distributed.is_initialized():
        return [value]
    first = rank_of_process() == 0
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.gather_object(value, values if first else None)
    return values if first else [value]


def _check_left(spec: RunSpec, counts: Sequence[Counter[str]]) -> None:
    total = sum(counts, Counter())
    if total[ROWS] > total[DROPPED]:
        return
    raise DataError(
        ", ".join(dataset.uri for dataset in spec.datasets[:3]),
        f"none of {total[ROWS]} rows has a token to measure within evaluate.maxLength"
        f" ({spec.max_length})",
        "raise evaluate.maxLength, or add rows",
    )


def _load(job: Job, largest_id: int, folder: Path) -> transformers.PreTrainedModel:
    """Returns the model on its device, and tells what was chosen."""
    spec = job.run.spec
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank_of_process())
    device = find_device()
    precision = choose_precision(
        spec.require_evaluate().precision, device, field="evaluate.precision"
    )
    model = load_model(job, device, precision)
    check_embeddings(model, largest_id, spec.source_uri)
    if job.adapter_path:
        model = put_adapter(model, job)
    if rank_of_process() == 0:
        _tell_resolved(spec, model, device, precision, folder)
    to: Any = model.to
    placed: transformers.PreTrainedModel = to(device.kind)
    return placed


def _tell_resolved(
    spec: RunSpec,
    model: transformers.PreTrainedModel,
    device: Device,
    precision: Precision,
    folder: Path,
) -> None:
    resolved = Resolved(
        precision=precision,
        device=device.name[:64],
        total_parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable_parameters=0,
        spec_hash=spec_hash(spec),
    )
    logger.info("resolved: %s", json.dumps(resolved.to_dict()))
    write_atomically(folder / workdir.RESOLVED, json.dumps(resolved.to_dict()))


def _measure(
    spec: RunSpec,
    measuring: Measuring,
    tokenizer: transformers.PreTrainedTokenizerBase,
    rows: Sequence[Measured],
    telling: Telling | None,
) -> Outcome:
    """Measures this process's rows; loss and answers go together, so that the pace is even."""
    made = batches(rows, spec.require_evaluate().batch_size)
    outcome = Outcome(batches=len(made))
    if telling is not None:
        telling.say("Evaluating", f"{len(rows):,} rows of this process in {len(made):,} batches")
        telling.begin()
    for done, batch in enumerate(made, start=1):
        begin = time.perf_counter()
        losses = measuring.losses(batch)
        between = time.perf_counter()
        answers = _answers(measuring, tokenizer, batch)
        outcome.loss_seconds += between - begin
        outcome.predict_seconds += time.perf_counter() - between
        for row, loss in zip(batch, losses, strict=True):
            if not math.isfinite(loss.total):
                raise DataError(
                    spec.source_uri,
                    f"its loss of {row.place} is {loss.total}",
                    "use a model whose weights are finite, or evaluate.precision FP32",
                )
            answer = answers.get(row.key)
            outcome.rows.append(Scored(row.key, loss.total, loss.tokens, loss.correct, answer))
        if telling is not None:
            if done == 1:
                _show(list(answers.values())[:_SHOWN])
            if telling.due() or done == len(made):
                telling.log(done, len(made))
    return outcome


def _answers(
    measuring: Measuring, tokenizer: transformers.PreTrainedTokenizerBase, batch: Sequence[Measured]
) -> dict[tuple[int, int, int], Answer]:
    """Returns the answers to the questions of a batch, by the rows' keys."""
    asked = [row for row in batch if row.question is not None]
    if not asked:
        return {}
    answers = {}
    for row, ids in zip(asked, measuring.answers(asked), strict=True):
        if row.question is None:
            continue
        prompt = str(tokenizer.decode(row.question.prompt))
        said = str(tokenizer.decode(ids, skip_special_tokens=True))
        wanted = row.question.wanted
        answers[row.key] = Answer(prompt, said, wanted, scores.rouge(said, wanted))
    return answers


def _show(answers: Sequence[Answer]) -> None:
    for answer in answers:
        logger.info("prompt: %s", answer.prompt)
        logger.info("predict: %s", answer.predict)
        logger.info("label: %s", answer.label)


def _write(numbers: dict[str, Any], rows: Sequence[Scored], out: Path) -> None:
    """Writes numbers and answers, and last of all the mark that all is there."""
    path = out / ALL_RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    answers = [row.answer for row in rows if row.answer is not None]
    if answers:
        with (out / PREDICTIONS).open("w", encoding="utf-8") as file:
            for answer in answers:
                line = {
                    "prompt": answer.prompt,
                    "predict": answer.predict,
                    "label": answer.label,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    (out / workdir.DONE).touch()
    logger.info("results: %s", json.dumps({k: v for k, v in numbers.items() if k != "datasets"}))
