"""What is left of a finished run on disk: adapter, model, results, plot and model cards."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from llmtrain_trainer import workdir
from llmtrain_trainer.data import mixing
from llmtrain_trainer.data.tokens import Account
from llmtrain_trainer.stages import ancestry, plots, results, rewards
from llmtrain_trainer.stages.card import Kind, write_card
from llmtrain_trainer.stages.loading import load_tokenizer
from llmtrain_trainer.workdir import Job

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmtrain_trainer.stages.flow import Recorded

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers")
_CURVES_OF_THE_CARD = ("training_loss.png", "training_rewards.png")


def write(
    job: Job,
    folder: Path,
    trainer: Recorded,
    account: Account,
    metrics: Mapping[str, Any],
    weights: str,
) -> None:
    """Writes `final/` in the working folder, `.done` last; called in the first process only."""
    out = folder / workdir.FINAL
    history = trainer.state.log_history
    numbers = results.collect(metrics, history, account, weights) | rewards.last(history)
    if (chosen := mixing.drawn(account, job.run.spec)) is not None:
        epochs = trainer.state.epoch
        numbers["data_mixing"] = mixing.summary(account, job.run.spec, chosen, epochs=epochs)
    _write_json(out / "results" / "all_results.json", numbers)
    drawn = plots.write_all(history, job.run.name, out / "plots")
    lineage = ancestry.with_run(ancestry.of_source(job), job.run, account.datasets, weights)
    tokenizer = load_tokenizer(job)
    versions = {library: version(library) for library in _LIBRARIES}
    for kind in _save_weights(job, out, trainer, account):
        tokenizer.save_pretrained(out / kind)
        ancestry.write(lineage, out / kind)
        curves = [name for name in _CURVES_OF_THE_CARD if name in drawn]
        for name in curves:  # Beside the card, which may be moved with its folder.
            shutil.copy(out / "plots" / name, out / kind)
        card = write_card(
            job.run.name,
            kind,
            job.run.spec,
            account,
            numbers,
            versions,
            lineage=ancestry.describe(lineage, job.model_files),
            curves=curves,
        )
        (out / kind / "README.md").write_text(card, encoding="utf-8")
    (out / workdir.DONE).touch()
    logger.info("all results are written")


def _save_weights(job: Job, out: Path, trainer: Recorded, account: Account) -> list[Kind]:
    """Saves the weights; returns the folders made."""
    spec = job.run.spec
    model = trainer.accelerator.unwrap_model(trainer.model)
    if spec.method == "Full":
        model.to(dtype=_stored_dtype(job))
        _save_model(model, out / "model", account)
        return ["model"]
    model.save_pretrained(out / "adapter")
    _name_base(out / "adapter" / "adapter_config.json", spec.source_uri)
    if not spec.output.export.merge_adapter:
        return ["adapter"]
    model.to("cpu")  # The merge happens there, and nothing is trained any more.
    base = _load_base(job, pad_token=model.config.pad_token_id)
    merged = PeftModel.from_pretrained(base, str(out / "adapter")).merge_and_unload(safe_merge=True)
    _save_model(merged, out / "model", account)
    return ["adapter", "model"]


def _load_base(job: Job, *, pad_token: int | None) -> PreTrainedModel:
    """Returns the model that training started from, as it is stored."""
    dtype = _stored_dtype(job)
    model: PreTrainedModel
    if job.run.spec.stage == "Reward":  # The adapter brings the head, which reads the last token.
        model = AutoModelForSequenceClassification.from_pretrained(
            job.model_path, dtype=dtype, num_labels=1, pad_token_id=pad_token
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(job.model_path, dtype=dtype)
    return model


def _stored_dtype(job: Job) -> torch.dtype:
    """Returns the number format in which the base model is stored; the result is stored alike.

    A new model is stored as it was trained.
    """
    if job.run.spec.architecture is not None:
        return torch.float32
    dtype = AutoConfig.from_pretrained(job.model_path).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _save_model(model: PreTrainedModel, folder: Path, account: Account) -> None:
    """Saves a model that stops at the end of a turn when it generates."""
    _stop_at(model, account.turn_end)
    model.save_pretrained(folder)


def _stop_at(model: PreTrainedModel, turn_end: int | None) -> None:
    """Adds the token that was trained to end an answer to those that end generation."""
    if turn_end is None:  # With stage Reward, too: a model that generates nothing.
        return
    generation = model.generation_config
    if generation is None:
        return
    ends = generation.eos_token_id
    known = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if turn_end not in known:
        generation.eos_token_id = [turn_end, *known]


def _name_base(path: Path, uri: str) -> None:
    """Names the base by its URI instead of a path of this machine."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = uri
    _write_json(path, config)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
