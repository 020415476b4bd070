"""How well training uses its devices: speed per device, share of the peak, memory.

The share of the peak is MFU as PaLM defined it: the operations that the trained model's own passes
need, over what the devices could do in that time. What is computed twice to save memory, and the
passes of a reference model, do not count; nor does the causal mask lessen those of attention.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object

from llmtrain_api.run import RunSpec
from llmtrain_api.stages.pretrain import Pretrain
from llmtrain_trainer.data.tokens import Account
from llmtrain_trainer.stages.devices import Device, Precision, peak_bf16_flops
from llmtrain_trainer.stages.pace import Speed

_PAIRS = ("DPO", "Reward")
"""Stages whose rows hold two sequences, each of which has the prompt in it."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""By which a configuration says that a token goes through some of the weights only."""

_MEMORY = ("peak_memory_device", "peak_memory_host")


@dataclass(frozen=True)
class Work:
    """What training on one token takes, and what the devices can do."""

    flops_per_token: float
    devices: int
    peak_flops: float | None
    """Operations per second of one device; none where it is not known."""

    def mfu(self, tokens_per_second: float) -> float | None:
        """Returns the share of the devices' peak that is used, from 0 to 1."""
        if self.peak_flops is None:
            return None
        return tokens_per_second * self.flops_per_token / (self.devices * self.peak_flops)


def flops_per_token(trained: int, frozen: int, *, layers: int, width: int, length: float) -> float:
    """Returns the operations of the forward and backward pass of one token.

    Each weight takes two in the forward pass and two for the gradient of its input; one that is
    trained, two more for its own gradient. Attention takes 12 for each layer, channel and token of
    the sequence (PaLM, appendix B).

    Args:
        trained: Weights that are trained and multiplied with.
        frozen: Weights that are only multiplied with.
        layers: Layers with attention.
        width: Channels of all heads of a layer together.
        length: Tokens that attend to each other.
    """
    return 6.0 * trained + 4.0 * frozen + 12.0 * layers * width * length


def mean_length(account: Account, spec: RunSpec) -> float:
    """Returns how many tokens attend to each other on average, within `training.maxLength`."""
    most = float(spec.require_training().max_length)
    if spec.stage == "Pretrain" and not (spec.pretrain or Pretrain()).isolate_documents:
        return most
    rows = account.total("train") + account.total("evaluation")
    if rows == 0 or account.total("tokens") == 0:
        return most
    return min(most, account.total("tokens") / rows / (2 if spec.stage in _PAIRS else 1))


def matrix_weights(model: torch.nn.Module) -> tuple[int, int]:
    """Returns how many weights are trained, and how many are frozen, that tokens are multiplied by.

    A table of embeddings is looked up, not multiplied with, unless the output head shares it.
    """
    tables = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    shared = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)
    }
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        if id(parameter) not in tables - shared:
            counts[parameter.requires_grad] += parameter.numel()
    return counts[True], counts[False]


def work_of(
    model: Any, account: Account, spec: RunSpec, device: Device, precision: Precision
) -> Work:
    """Returns what training `model`, one of transformers or PEFT, takes on the run's devices."""
    trained, frozen = matrix_weights(model)
    config = model.config.get_text_config()
    layers, width = _attention(config)
    length = mean_length(account, spec)
    known = precision == "BF16" and not any(getattr(config, name, None) for name in _EXPERTS)
    return Work(
        flops_per_token(trained, frozen, layers=layers, width=width, length=length),
        devices=spec.world_size,
        peak_flops=peak_bf16_flops(device.name) if known else None,
    )


def _attention(config: Any) -> tuple[int, int]:
    """Returns the layers with attention, and the channels of all heads of one, 0 for none."""
    heads, layers = (
        getattr(config, name, None) for name in ("num_attention_heads", "num_hidden_layers")
    )
    if not isinstance(heads, int) or not isinstance(layers, int) or heads == 0:
        return 0, 0  # A kind of model without attention, or with another in each layer.
    return layers, heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def numbers_of(speed: Speed, work: Work | None) -> dict[str, float | None]:
    """Returns a speed in the words of the training log; what is not known is None."""
    numbers = {"throughput": speed.tokens_per_second, "data_wait": speed.data_wait}
    if speed.tokens_per_second is not None and work is not None:
        numbers["throughput_per_device"] = speed.tokens_per_second / work.devices
        numbers["mfu"] = work.mfu(speed.tokens_per_second)
    return numbers


def memory() -> dict[str, int | None]:
    """Returns the most memory that this process has held so far, in bytes."""
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux says KiB.
    return {"peak_memory_device": device, "peak_memory_host": host}


def results(speed: Speed, work: Work | None) -> dict[str, Any]:
    """Returns what `all_results.json` says of an attempt's speed and memory.

    All processes must call it: the memory is that of the process that held most.
    """
    numbers = numbers_of(speed, work)
    held: Sequence[Mapping[str, int | None]] = gather_object([memory()])
    most = {name: max((each[name] or 0 for each in held), default=0) or None for name in _MEMORY}
    return {
        "train_tokens_per_second": numbers["throughput"],
        "train_tokens_per_second_per_device": numbers.get("throughput_per_device"),
        "train_mfu": numbers.get("mfu"),
        "train_data_wait": numbers["data_wait"],
        **most,
    }
