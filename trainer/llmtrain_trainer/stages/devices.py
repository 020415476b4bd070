"""What follows from the device: pure functions, so that devices that are not here can be tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmtrain_api.errors import ConfigError

Precision = Literal["BF16", "FP32"]


_PEAK_BF16_TERAFLOPS = (
    # The words of a device's name, those with more words first; dense products, as the makers'
    # data sheets give them (half of what they give with sparsity).
    ("GH200", 989.5),
    ("H100 PCIe", 756.5),
    ("H100 NVL", 835.5),
    ("H100", 989.5),
    ("H200 NVL", 835.5),
    ("H200", 989.5),
    ("H800", 989.5),
    ("H20", 148.0),
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.05),
    ("L40", 181.05),
    ("L4", 121.0),
    ("RTX 6000 Ada", 364.25),
    ("RTX A6000", 154.85),
    ("GeForce RTX 4090", 165.2),
    ("GeForce RTX 3090", 71.2),
    ("Instinct MI300X", 1307.4),
    ("Instinct MI325X", 1307.4),
)


def peak_bf16_flops(name: str) -> float | None:
    """Returns the operations per second that a device can do in bf16, none where it is not known.

    A slice of a GPU (MIG) is not known: its name does not say what share of the whole it is.

    Args:
        name: As torch says it, such as `NVIDIA H100 80GB HBM3`.
    """
    words = set(name.replace("-", " ").split())
    if "MIG" in words:
        return None
    return next(
        (
            teraflops * 1e12
            for known, teraflops in _PEAK_BF16_TERAFLOPS
            if words.issuperset(known.split())
        ),
        None,
    )


@dataclass(frozen=True)
class Device:
    """The device of a process; `bf16` says whether it computes in bf16 without emulation."""

    kind: Literal["cuda", "cpu"]
    name: str
    bf16: bool


def find_device() -> Device:
    """Returns the device that this process will train on: a GPU where there is one."""
    import torch  # Late: importing torch takes seconds.

    if not torch.cuda.is_available():
        return Device("cpu", "cpu", bf16=False)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Device("cuda", torch.cuda.get_device_name(), bf16=bf16)


def choose_precision(
    asked: Literal["Auto", "BF16", "FP32"], device: Device, field: str = "training.precision"
) -> Precision:
    """Returns the number format of the forward and backward pass.

    `BF16` on a CPU is honoured (autocast works there, slowly); on a GPU without bf16 units it is
    refused. `field` is where it stands in the spec.

    Raises:
        ConfigError: `BF16` was asked of a GPU that does not compute in it.
    """
    if asked == "Auto":
        return "BF16" if device.bf16 else "FP32"
    if asked == "BF16" and device.kind == "cuda" and not device.bf16:
        raise ConfigError(
            field,
            f"{device.name} does not compute in bf16",
            "use precision: Auto or FP32, or GPUs of the Ampere generation or later",
        )
    return asked


def choose_backend(device: Device, *, distributed: bool) -> Literal["nccl", "gloo"] | None:
    """Returns the backend of torch.distributed; none for a process that torchrun did not start."""
    if not distributed:
        return None
    return "nccl" if device.kind == "cuda" else "gloo"


def choose_attention(device: Device, precision: Precision, *, flash_installed: bool) -> str:
    """Returns the attention implementation, by transformers' name.

    flash-attention computes in half precision on GPUs only; sdpa is right everywhere, packing
    included.
    """
    if device.kind == "cuda" and precision == "BF16" and flash_installed:
        return "flash_attention_2"
    return "sdpa"


def base_weights_in_bf16(method: Literal["LoRA", "Full"], precision: Precision) -> bool:
    """Returns whether the model is loaded in bf16.

    A frozen base may be; weights that are trained stay in fp32, since small updates vanish in bf16.
    """
    return method == "LoRA" and precision == "BF16"
