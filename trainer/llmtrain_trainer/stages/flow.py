"""What the training stages have in common: load, train, compare the processes, leave results.

A stage says what is its own: how its rows become tokens, and which trainer reads them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.distributed
import transformers
from accelerate.utils import gather_object
from peft import LoraConfig
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from llmtrain_api.errors import ConfigError
from llmtrain_api.exits import ExitClass
from llmtrain_api.progress import Resolved
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import spec_hash
from llmtrain_trainer import workdir
from llmtrain_trainer.data import mixing, tokens
from llmtrain_trainer.data.tokens import Account, Prepared
from llmtrain_trainer.failures import local_rank_of_process, rank_of_process
from llmtrain_trainer.stages import arguments, artifacts, efficiency, samples
from llmtrain_trainer.stages.callbacks import (
    Checkpoints,
    Guard,
    StopOnRequest,
    TrainingLog,
    check_weights,
)
from llmtrain_trainer.stages.deal import Filled
from llmtrain_trainer.stages.devices import Device, Precision, choose_precision, find_device
from llmtrain_trainer.stages.keep_best import KeepBest
from llmtrain_trainer.stages.loading import (
    check_embeddings,
    load_model,
    load_tokenizer,
    lora_config,
    new_model,
)
from llmtrain_trainer.stages.measure import Measured
from llmtrain_trainer.stages.once import EachRowOnce
from llmtrain_trainer.stages.samples import SampleRecorder
from llmtrain_trainer.workdir import Job, say, write_atomically

logger = logging.getLogger(__name__)

_trainer: transformers.Trainer | None = None


class Recorded(Measured, EachRowOnce):
    """Beside a trainer of transformers or TRL: samples are recorded, and no step is one too many.

    Stands before the trainer in a class's bases.
    """

    model: torch.nn.Module
    recorder: SampleRecorder
    log_of_training: TrainingLog

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trains an epoch, unless training went on from a checkpoint of the last step.

        transformers looks for the end only after a step, so it would train one more.
        """
        ended = self.state.global_step >= self.state.max_steps
        if not (ended or self.control.should_training_stop):
            super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, epoch_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the batches of one step, and takes the time until they are there."""
        timed = self.log_of_training.pace.waiting(epoch_iterator)
        return super().get_batch_samples(timed, *args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """Returns the loader of training batches, made by the recorder's hand."""
        collator, self.data_collator = self.data_collator, self.recorder
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator


@dataclass(frozen=True)
class Parts:
    """What a stage makes its trainer of."""

    job: Job
    config: TrainingArguments
    model: PreTrainedModel
    tokenizer: Any
    prepared: Prepared
    lora: LoraConfig | None
    callbacks: list[TrainerCallback]

    def train_rows(self) -> datasets.Dataset:
        """Returns the rows to train on, mapped into memory, by the weights of their data sets."""
        found = datasets.Dataset.from_file(str(self.prepared.train))
        account, spec = self.prepared.account_of(self.job), self.job.run.spec
        chosen = mixing.drawn(account, spec) if account is not None else None
        if account is None or chosen is None:
            return found
        if rank_of_process() == 0:
            logger.info("rows of an epoch: %s", json.dumps(mixing.summary(account, spec, chosen)))
        sizes = [dataset.train for dataset in account.datasets]
        return found.select(mixing.rows(sizes, chosen, spec.require_training().seed))

    def held_out_rows(self) -> datasets.Dataset | None:
        """Returns the rows held out, or none where nothing is evaluated."""
        if self.job.run.spec.evaluation is None:
            return None
        return datasets.Dataset.from_file(str(self.prepared.evaluation))


@dataclass(frozen=True)
class Stage:
    """What is a stage's own."""

    prepare: Callable[[Job, Any, Path], Account]
    """Writes the tokens of all rows into a folder, given the tokenizer."""

    build: Callable[[Parts], Recorded]
    """Makes the trainer; a ValueError or NotImplementedError of it is the user's to mend."""

    load: Callable[[Job, Device, Precision], PreTrainedModel] = load_model
    """Loads the model that training starts from."""


def current_step() -> int | None:
    """Returns the optimizer steps done, once training has begun."""
    return _trainer.state.global_step if _trainer is not None else None


def run(job: Job, folder: Path, stage: Stage) -> ExitClass:
    """Trains as `job` says, in this process.

    Args:
        job: What to do.
        folder: The working folder, shared with the launcher and the node's other processes.
        stage: What is the stage's own.

    Returns:
        `SUCCESS`, or `PREEMPTED` when a checkpoint was saved on request.

    Raises:
        LLMTrainError: What the user must mend, or a run that diverged.
    """
    global _trainer
    spec = job.run.spec
    _quiet_libraries()
    if job.run.task == "Prepare":
        _tokens(job, folder, load_tokenizer(job), stage)
        return ExitClass.SUCCESS
    device = find_device()
    precision = choose_precision(spec.require_training().precision, device)
    arguments.check(spec)
    tokenizer = load_tokenizer(job)
    account = _tokens(job, folder, tokenizer, stage)
    config = arguments.build(spec, device, precision, folder / workdir.CHECKPOINTS)
    config.eval_on_start = config.eval_on_start and job.resume_from is None
    _say(folder, "loading the model")
    if spec.architecture is None:
        model = stage.load(job, device, precision)
    else:
        model = new_model(spec, tokenizer, device, precision)
        count, rows = model.num_parameters(), model.config.vocab_size
        _say(folder, f"a new model of {count:,} parameters, with {rows:,} embedding rows")
    check_embeddings(model, account.largest_id, spec.source_uri)
    stop = StopOnRequest(folder)
    keeper = KeepBest(spec.evaluation, folder)
    # The guard stands before all that saves or logs.
    log = TrainingLog(folder)
    callbacks = [stop, Guard(), keeper, Checkpoints(folder), log]
    lora = lora_config(spec, model)
    prepared = Prepared(folder / workdir.TOKENS)
    trainer = _build(Parts(job, config, model, tokenizer, prepared, lora, callbacks), stage)
    _trainer = trainer
    trainer.log_of_training = log
    log.work = efficiency.work_of(trainer.model, account, spec, device, precision)
    _write_resolved(trainer, spec, device, precision, folder)
    output = trainer.train(resume_from_checkpoint=job.resume_from)
    if stop.stopped:
        return _stopped(trainer, folder)
    check_weights(trainer.model, trainer.state.global_step)
    if spec.evaluation is not None and not _evaluated(trainer):
        _say(folder, "the final model", "Evaluating")
        trainer.evaluate()
    best = keeper.numbers(trainer.state, keeper.load(trainer, job.best_from))
    weights = _compare_processes(trainer)
    metrics = output.metrics | efficiency.results(log.pace.whole(), log.work)
    if trainer.is_world_process_zero():
        _say(folder, "writing the results", "Finishing")
        artifacts.write(job, folder, trainer, account, {**metrics, **best}, weights)
    _leave_group()
    return ExitClass.SUCCESS


def _quiet_libraries() -> None:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    # What they say of their own future is not for the reader of a run's log.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")


def _say(folder: Path, message: str, activity: Any = "Loading") -> None:
    if rank_of_process() == 0:
        logger.info("%s: %s", activity.lower(), message)
        say(folder, activity, message)


def _tokens(job: Job, folder: Path, tokenizer: Any, stage: Stage) -> Account:
    """Returns the account of the rows once their tokens are on this node's disk."""
    _say(folder, "turning rows into tokens", "Preparing")
    if local_rank_of_process() != 0:
        return tokens.wait_for(job, folder / workdir.TOKENS)
    account = stage.prepare(job, tokenizer, folder / workdir.TOKENS)
    if rank_of_process() == 0:
        logger.info("rows: %s", account.summary())
    return account


def _build(parts: Parts, stage: Stage) -> Recorded:
    try:
        trainer = stage.build(parts)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            "training", f"TRL or transformers refuses these settings ({error})", "correct them"
        ) from error
    _check_optimizer(trainer, parts.job.run.spec.require_training().optim)
    rows: Any = trainer.train_dataset
    trainer.data_collator = Filled(trainer.data_collator, rows[0])
    trainer.recorder = SampleRecorder(trainer.data_collator)
    trainer.add_callback(trainer.recorder)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _check_optimizer(trainer: Recorded, name: str) -> None:
    """Makes the optimizer, which may need a package or an argument that is not there."""
    try:
        trainer.create_optimizer()
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            "training.optim",
            f"'{name}' does not work here ({error})",
            "use adamw_torch or adafactor, or an image and training.arguments with what it needs",
        ) from error


def _write_resolved(
    trainer: Recorded, spec: RunSpec, device: Device, precision: Precision, folder: Path
) -> None:
    parameters = [(p.numel(), p.requires_grad) for p in trainer.model.parameters()]
    resolved = Resolved(
        precision=precision,
        device=device.name[:64],
        gradient_accumulation_steps=spec.gradient_accumulation_steps,
        trainable_parameters=sum(count for count, trained in parameters if trained),
        total_parameters=sum(count for count, _ in parameters),
        spec_hash=spec_hash(spec),
    )
    if trainer.is_world_process_zero():
        logger.info("resolved: %s", json.dumps(resolved.to_dict()))
        write_atomically(folder / workdir.RESOLVED, json.dumps(resolved.to_dict()))


def _stopped(trainer: Recorded, folder: Path) -> ExitClass:
    """Says that the run was stopped, once all processes have saved."""
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        step = trainer.state.global_step
        logger.info("stopped on request after step %d, with a checkpoint", step)
        write_atomically(folder / workdir.PREEMPTED, json.dumps({"step": step}))
    _leave_group()
    return ExitClass.PREEMPTED


def _evaluated(trainer: Recorded) -> bool:
    """Returns whether the model as it is now has been evaluated."""
    step = trainer.state.global_step
    return any("eval_loss" in line and line["step"] == step for line in trainer.state.log_history)


def _compare_processes(trainer: Recorded) -> str:
    """Returns the SHA-256 of the trained weights, the same in all processes.

    Raises:
        RuntimeError: The processes ended with different weights.
    """
    own = _hash_weights(trainer.model)
    hashes = gather_object([own])
    digests = gather_object([trainer.recorder.digests])
    if trainer.is_world_process_zero():
        for rank, weights in enumerate(hashes):
            logger.info("weights sha256 %s on rank %d", weights, rank)
        samples.report(digests)
    if len(set(hashes)) != 1:
        raise RuntimeError(f"the processes ended with different weights: {', '.join(hashes)}")
    return own


def _hash_weights(model: torch.nn.Module) -> str:
    """Returns the SHA-256 of the trained weights: names and bytes, in the model's order."""
    whole = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            whole.update(name.encode())
            flat = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
            whole.update(flat.numpy().data)
    return whole.hexdigest()


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
