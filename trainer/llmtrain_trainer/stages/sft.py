"""Supervised fine-tuning: TRL's SFTTrainer over rows that chat.py has turned into tokens."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.distributed
import transformers
from accelerate.utils import gather_object
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.exits import ExitClass
from llmtrain_api.progress import Resolved
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import spec_hash
from llmtrain_api.training import LoRA
from llmtrain_trainer import workdir
from llmtrain_trainer.data import tokens
from llmtrain_trainer.data.tokens import Account, Prepared
from llmtrain_trainer.failures import local_rank_of_process, rank_of_process
from llmtrain_trainer.stages import arguments, artifacts, samples
from llmtrain_trainer.stages.callbacks import (
    Checkpoints,
    Guard,
    StopOnRequest,
    TrainingLog,
    check_weights,
    say,
)
from llmtrain_trainer.stages.devices import (
    Device,
    Precision,
    base_weights_in_bf16,
    choose_attention,
    choose_precision,
    find_device,
)
from llmtrain_trainer.stages.samples import SampleRecorder
from llmtrain_trainer.workdir import Job, write_atomically

logger = logging.getLogger(__name__)

TOKENS = "tokens"
_trainer: SFTTrainer | None = None


class Trainer(SFTTrainer):
    """TRL's trainer, with the samples of training recorded, and never a step too many."""

    model: torch.nn.Module
    recorder: SampleRecorder

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trains an epoch, unless training went on from a checkpoint of the last step.

        transformers looks for the end only after a step, so it would train one more.
        """
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def get_train_dataloader(self) -> Any:
        """Returns TRL's loader of training batches, made by the recorder's hand."""
        collator, self.data_collator = self.data_collator, self.recorder
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator


def current_step() -> int | None:
    """Returns the optimizer steps done, once training has begun."""
    return _trainer.state.global_step if _trainer is not None else None


def run(job: Job, folder: Path) -> ExitClass:
    """Trains as `job` says, in this process.

    Args:
        job: What to do.
        folder: The working folder, shared with the launcher and the node's other processes.

    Returns:
        `SUCCESS`, or `PREEMPTED` when a checkpoint was saved on request.

    Raises:
        LLMTrainError: What the user must mend, or a run that diverged.
    """
    global _trainer
    spec = job.run.spec
    _quiet_libraries()
    device = find_device()
    precision = choose_precision(spec.training.precision, device)
    arguments.check(spec)
    tokenizer = _load_tokenizer(job)
    account = _tokens(job, folder, tokenizer)
    config = arguments.build(spec, device, precision, folder / workdir.CHECKPOINTS)
    _say(folder, "loading the model")
    model = _load_model(job, device, precision)
    _check_vocabulary(model, account, spec)
    trainer, stop = _build_trainer(job, folder, config, model, tokenizer)
    _trainer = trainer
    _write_resolved(trainer, spec, device, precision, folder)
    output = trainer.train(resume_from_checkpoint=job.resume_from)
    if stop.stopped:
        return _stopped(trainer, folder)
    check_weights(trainer.model, trainer.state.global_step)
    if spec.evaluation is not None and not _evaluated(trainer):
        _say(folder, "the final model", "Evaluating")
        trainer.evaluate()
    weights = _compare_processes(trainer)
    if trainer.is_world_process_zero():
        _say(folder, "writing the results", "Finishing")
        artifacts.write(job, folder, trainer, account, output.metrics, weights)
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


def _tokens(job: Job, folder: Path, tokenizer: Any) -> Account:
    """Returns the account of the rows once their tokens are on this node's disk."""
    _say(folder, "reading and tokenising the rows")
    if local_rank_of_process() != 0:
        return tokens.wait_for(job, folder / TOKENS)
    account = tokens.prepare(job, tokenizer, folder / TOKENS)
    if rank_of_process() == 0:
        logger.info("rows: %s", account.summary())
    return account


def _load_tokenizer(job: Job) -> Any:
    try:
        return AutoTokenizer.from_pretrained(job.model_path)
    except MemoryError:
        raise
    except Exception as error:  # The Rust library below raises plain Exception.
        raise DataError(
            job.run.spec.model.uri,
            f"transformers {transformers.__version__} cannot load its tokenizer ({error})",
            "save it there again with transformers: tokenizer.save_pretrained(folder)",
        ) from error


def _load_model(job: Job, device: Device, precision: Precision) -> PreTrainedModel:
    spec = job.run.spec
    flash = importlib.util.find_spec("flash_attn") is not None
    in_bf16 = base_weights_in_bf16(spec.tuning.method, precision)
    try:
        return AutoModelForCausalLM.from_pretrained(
            job.model_path,
            dtype=torch.bfloat16 if in_bf16 else torch.float32,
            attn_implementation=choose_attention(device, precision, flash_installed=flash),
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            spec.model.uri,
            f"transformers {transformers.__version__} cannot load it ({error})",
            "name the folder of a causal language model that this version of transformers knows",
        ) from error


def _check_vocabulary(model: PreTrainedModel, account: Account, spec: RunSpec) -> None:
    """Holds the tokens against the embeddings: a GPU only says "device-side assert triggered"."""
    embeddings = next(model.get_input_embeddings().parameters()).shape[0]
    if account.largest_id >= embeddings:
        raise DataError(
            spec.model.uri,
            f"its tokenizer makes token {account.largest_id}, but the model has only {embeddings}"
            " embeddings",
            "upload the tokenizer that belongs to the model",
        )


def _build_trainer(
    job: Job, folder: Path, config: SFTConfig, model: PreTrainedModel, tokenizer: Any
) -> tuple[Trainer, StopOnRequest]:
    spec = job.run.spec
    prepared = Prepared(folder / TOKENS)
    held_out = spec.evaluation is not None
    stop = StopOnRequest(folder)
    try:
        trainer = Trainer(
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_file(str(prepared.train)),
            eval_dataset=datasets.Dataset.from_file(str(prepared.evaluation)) if held_out else None,
            processing_class=tokenizer,
            peft_config=_lora(spec, model),
            # The guard stands before all that saves or logs.
            callbacks=[stop, Guard(), Checkpoints(folder), TrainingLog(folder)],
        )
    except ValueError as error:
        raise ConfigError(
            "training", f"TRL or transformers refuses these settings ({error})", "correct them"
        ) from error
    _check_optimizer(trainer, spec.training.optim)
    trainer.recorder = SampleRecorder(trainer.data_collator)
    trainer.add_callback(trainer.recorder)
    trainer.remove_callback(PrinterCallback)
    return trainer, stop


def _check_optimizer(trainer: Trainer, name: str) -> None:
    """Makes the optimizer, which may need a package or an argument that is not there."""
    try:
        trainer.create_optimizer()
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            "training.optim",
            f"'{name}' does not work here ({error})",
            "use adamw_torch or adafactor, or an image and training.arguments with what it needs",
        ) from error


def _lora(spec: RunSpec, model: PreTrainedModel) -> LoraConfig | None:
    """Returns PEFT's settings of the adapter, or none for full tuning."""
    if spec.tuning.method != "LoRA":
        return None
    lora = spec.tuning.lora or LoRA()
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )
    modules = [name for name, _ in model.named_modules()]
    for target in lora.target_modules or []:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            raise ConfigError(
                "tuning.lora.targetModules",
                f"the model has no layer '{target}'",
                f"choose from {', '.join(linear)}, or leave it out for all of them",
            )
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )


def _write_resolved(
    trainer: Trainer, spec: RunSpec, device: Device, precision: Precision, folder: Path
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


def _stopped(trainer: Trainer, folder: Path) -> ExitClass:
    """Says that the run was stopped, once all processes have saved."""
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        step = trainer.state.global_step
        logger.info("stopped on request after step %d, with a checkpoint", step)
        write_atomically(folder / workdir.PREEMPTED, json.dumps({"step": step}))
    _leave_group()
    return ExitClass.PREEMPTED


def _evaluated(trainer: Trainer) -> bool:
    """Returns whether the model as it is now has been evaluated."""
    step = trainer.state.global_step
    return any("eval_loss" in line and line["step"] == step for line in trainer.state.log_history)


def _compare_processes(trainer: Trainer) -> str:
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
