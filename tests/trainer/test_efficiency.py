"""Operations per token, the share of the peak, and memory."""

from __future__ import annotations

from typing import Any

import jobs
import pytest
import specs

from llmtrain_api.run import RunSpec
from llmtrain_trainer.data.tokens import Account, DatasetAccount

pytestmark = pytest.mark.torch


def account(rows: int = 10, tokens: int = 500) -> Account:
    dataset = DatasetAccount(uri="s3://d/a.jsonl", sha256="aa", train=rows, tokens=tokens)
    return Account(key="k", datasets=[dataset])


def test_operations_of_a_token() -> None:
    from llmtrain_trainer.stages.efficiency import flops_per_token

    # Llama 2 7B at 4,096 tokens: 6 N is 40 GFLOP, and attention adds 16 %.
    full = flops_per_token(6_607_000_000, 0, layers=32, width=4096, length=4096)
    assert full == pytest.approx(6 * 6.607e9 + 12 * 32 * 4096 * 4096)
    adapter = flops_per_token(0, 6_607_000_000, layers=32, width=4096, length=4096)
    assert full - adapter == pytest.approx(2 * 6.607e9), "no gradient of frozen weights"


def test_the_share_of_the_peak() -> None:
    from llmtrain_trainer.stages.efficiency import Work

    assert Work(1e10, devices=8, peak_flops=1e15).mfu(320_000.0) == pytest.approx(0.4)
    assert Work(1e10, devices=8, peak_flops=None).mfu(320_000.0) is None


@pytest.mark.parametrize("tied", [True, False], ids=["shared with the head", "of its own"])
def test_a_table_of_embeddings_counts_where_it_is_multiplied_with(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmtrain_trainer.stages.efficiency import matrix_weights

    config = LlamaConfig(
        vocab_size=100,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    everything = sum(parameter.numel() for parameter in model.parameters())
    table = 100 * 8
    assert matrix_weights(model) == (everything if tied else everything - table, 0)
    for parameter in model.parameters():
        parameter.requires_grad = False
    assert matrix_weights(model)[0] == 0


@pytest.mark.parametrize(
    ("changes", "tokens", "length"),
    [
        pytest.param({}, 500, 50.0, id="the rows' mean length"),
        pytest.param({}, 50_000, 128.0, id="cut at maxLength"),
        pytest.param({}, 0, 128.0, id="maxLength where nothing is known"),
        pytest.param({"stage": "DPO"}, 500, 25.0, id="a pair is two sequences"),
        pytest.param({"stage": "Pretrain"}, 500, 50.0, id="documents are kept apart"),
        pytest.param(
            {"stage": "Pretrain", "pretrain": {"isolateDocuments": False}},
            500,
            128.0,
            id="or fill the sequence",
        ),
    ],
)
def test_how_many_tokens_attend_to_each_other(
    changes: dict[str, Any], tokens: int, length: float
) -> None:
    from llmtrain_trainer.stages.efficiency import mean_length

    stage = changes.get("stage", "SFT")
    spec = specs.changed({**specs.good(stage), **changes}, "training.maxLength", 128)
    assert mean_length(account(tokens=tokens), RunSpec.model_validate(spec)) == length


def test_the_work_of_a_model_on_its_devices() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmtrain_trainer.stages.devices import Device
    from llmtrain_trainer.stages.efficiency import matrix_weights, work_of

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        head_dim=6,
    )
    model = LlamaForCausalLM(config)
    spec = RunSpec.model_validate(jobs.small_spec({"workers.nodes": 2}))
    h100 = Device("cuda", "NVIDIA H100 80GB HBM3", bf16=True)
    work = work_of(model, account(), spec, h100, "BF16")
    trained, _ = matrix_weights(model)
    assert work.flops_per_token == 6 * trained + 12 * 3 * 12 * 50
    assert work.devices == 2
    assert work.peak_flops == pytest.approx(989.5e12)
    assert work_of(model, account(), spec, h100, "FP32").peak_flops is None
    model.config.num_local_experts = 8
    assert work_of(model, account(), spec, h100, "BF16").peak_flops is None, "not all are used"
    model.config.num_attention_heads = 0
    assert work_of(model, account(), spec, h100, "BF16").flops_per_token == 6 * trained
