"""What follows from a device, for devices that are not here too."""

from __future__ import annotations

from typing import Literal

import pytest

from llmtrain_api.errors import ConfigError
from llmtrain_trainer.stages.devices import (
    Device,
    base_weights_in_bf16,
    choose_attention,
    choose_backend,
    choose_precision,
    peak_bf16_flops,
)

CPU = Device("cpu", "cpu", bf16=False)
V100 = Device("cuda", "Tesla V100-SXM2-16GB", bf16=False)
H100 = Device("cuda", "NVIDIA H100 80GB HBM3", bf16=True)


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [
        pytest.param("Auto", CPU, "FP32", id="Auto on a CPU is fp32"),
        pytest.param("Auto", V100, "FP32", id="Auto on a GPU without bf16 is fp32"),
        pytest.param("Auto", H100, "BF16", id="Auto on a GPU with bf16 is bf16"),
        pytest.param("FP32", H100, "FP32", id="fp32 is honoured everywhere"),
        pytest.param("BF16", CPU, "BF16", id="bf16 is honoured on a CPU"),
        pytest.param("BF16", H100, "BF16", id="bf16 is honoured where the GPU has it"),
    ],
)
def test_precision(asked: Literal["Auto", "BF16", "FP32"], device: Device, expected: str) -> None:
    assert choose_precision(asked, device) == expected


def test_bf16_is_refused_on_a_gpu_without_it() -> None:
    with pytest.raises(ConfigError, match=r"training\.precision: Tesla V100.* does not compute"):
        choose_precision("BF16", V100)


@pytest.mark.parametrize(
    ("device", "distributed", "expected"),
    [
        pytest.param(CPU, True, "gloo", id="CPUs talk over gloo"),
        pytest.param(H100, True, "nccl", id="GPUs talk over NCCL"),
        pytest.param(H100, False, None, id="a process alone talks to nobody"),
    ],
)
def test_backend(device: Device, distributed: bool, expected: str | None) -> None:
    assert choose_backend(device, distributed=distributed) == expected


@pytest.mark.parametrize(
    ("device", "precision", "installed", "expected"),
    [
        pytest.param(H100, "BF16", True, "flash_attention_2", id="flash attention where it works"),
        pytest.param(H100, "BF16", False, "sdpa", id="sdpa where flash attention is missing"),
        pytest.param(H100, "FP32", True, "sdpa", id="sdpa in fp32"),
        pytest.param(CPU, "BF16", True, "sdpa", id="sdpa on a CPU"),
    ],
)
def test_attention(
    device: Device, precision: Literal["BF16", "FP32"], installed: bool, expected: str
) -> None:
    assert choose_attention(device, precision, flash_installed=installed) == expected


@pytest.mark.parametrize(
    ("method", "precision", "expected"),
    [
        pytest.param("LoRA", "BF16", True, id="a frozen base may be bf16"),
        pytest.param("LoRA", "FP32", False, id="fp32 is fp32 throughout"),
        pytest.param("Full", "BF16", False, id="weights that are trained stay fp32"),
    ],
)
def test_base_weights(
    method: Literal["LoRA", "Full"], precision: Literal["BF16", "FP32"], expected: bool
) -> None:
    assert base_weights_in_bf16(method, precision) is expected


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA L4", 121.0),
        ("NVIDIA RTX 6000 Ada Generation", 364.25),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_the_peak_of_a_device(name: str, teraflops: float) -> None:
    assert peak_bf16_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    ["cpu", "Tesla V100-SXM2-16GB", "NVIDIA H1000", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", ""],
)
def test_the_peak_of_other_devices_is_not_known(name: str) -> None:
    assert peak_bf16_flops(name) is None
