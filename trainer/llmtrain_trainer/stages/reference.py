"""The model that DPO and KTO hold the trained one against, and what it says of the rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_api.stages.preference import DPO, KTO
from llmtrain_trainer.stages.flow import Parts

logger = logging.getLogger(__name__)


def load_reference(parts: Parts, settings: DPO | KTO) -> PreTrainedModel | None:
    """Returns the reference, frozen, in the number format of the trained model.

    Returns:
        None where the trained model can stand in for it: under LoRA with the adapter switched off,
        and with full tuning where the reference is only asked before the first step.

    Raises:
        ConfigError: The reference has another tokenizer.
        DataError: transformers cannot load it.
    """
    named = settings.reference_model
    if named is None:
        if parts.lora is not None or settings.precompute_ref_log_probs:
            return None
        # TRL would look for it where the model's configuration says that it came from.
        return _load(parts.job.model_path, parts.job.run.spec.source_uri, parts.model)
    reference = _load(parts.job.reference_path, named.uri, parts.model)
    block = parts.job.run.spec.stage.lower()
    _check_tokenizer(parts, f"{block}.referenceModel.uri", named.uri)
    return reference


def _load(path: str, uri: str, model: PreTrainedModel) -> PreTrainedModel:
    logger.info("loading the reference model %s", uri)
    try:
        reference: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            uri,
            f"transformers {transformers.__version__} cannot load it ({error})",
            "name the folder of a causal language model that this version of transformers knows",
        ) from error
    reference.requires_grad_(requires_grad=False)
    return reference


def _check_tokenizer(parts: Parts, field: str, uri: str) -> None:
    """Holds the reference's tokenizer, where its folder has one, against the model's."""
    folder = Path(parts.job.reference_path)
    if not (folder / "tokenizer.json").is_file():
        return
    if AutoTokenizer.from_pretrained(folder).get_vocab() != parts.tokenizer.get_vocab():
        raise ConfigError(
            field,
            f"{uri} has another tokenizer than {parts.job.run.spec.source_uri}, so its"
            " probabilities are those of other words",
            "name a reference of the same family, such as the model that this one was tuned from",
        )


def with_log_probs(
    trainer: Any, dataset: datasets.Dataset, batch_size: int, names: Sequence[str]
) -> datasets.Dataset:
    """Returns the rows with what the reference gives their answers, as columns `names`.

    In place of TRL's own way, which leaves them in a file that only the first node can read.

    Args:
        trainer: A DPOTrainer or KTOTrainer.
        dataset: Its rows.
        batch_size: Rows per process and forward pass.
        names: A name for each kind of log-probability that `compute_ref_log_probs` returns.
    """
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        collate_fn=trainer.data_collator,
        num_workers=trainer.args.dataloader_num_workers,
        pin_memory=trainer.args.dataloader_pin_memory,
        shuffle=False,
    )
    logger.info("computing the reference's log-probabilities of %d rows", len(dataset))
    model = trainer.ref_model or trainer.model
    found: list[list[torch.Tensor]] = [[] for _ in names]
    for batch in trainer.accelerator.prepare(loader):
        parts = trainer.compute_ref_log_probs(model, batch)
        for column, part in zip(found, parts, strict=False):
            column.append(trainer.accelerator.gather_for_metrics(part).cpu())
    for name, column in zip(names, found, strict=True):
        dataset = dataset.add_column(name, torch.cat(column).float().numpy())
    return dataset


def forget(trainer: Any) -> None:
    """Frees the memory of a reference that is not needed any more, since all was precomputed."""
    if trainer.ref_model is not None:
        trainer.ref_model.to("meta")
        trainer.ref_model = None
