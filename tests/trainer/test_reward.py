"""Reward models of a tiny model: the head, reports, restarts, and equality with plain TRL."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import exactness
import jobs
import pytest
import tiny

from llmtrain_trainer import worker

pytestmark = pytest.mark.torch

SUCCESS = 0
DATASETS = [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}]
FULL = {"tuning": {"method": "Full"}, "training.learningRate": 1.0e-3}
ROWS = [tiny.preference_rows(60)]
EVALUATED = {"evaluation": {"fraction": 0.2, "everySteps": 6}}


def changes(**more: Any) -> dict[str, Any]:
    return {"stage": "Reward", "datasets": DATASETS, "tuning.lora.dropout": 0, **more}


def train(folder: Path, model: Path, more: Mapping[str, Any], **job: Any) -> Path:
    """Runs a job to its end and returns its folder."""
    jobs.write_job(folder, model, changes(**more), **{"data": ROWS, **job})
    assert worker.main([str(folder)]) == SUCCESS
    return folder


@pytest.fixture(scope="module", params=["LoRA", "Full"])
def undisturbed(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of a run of 24 steps with evaluation, and what the run was."""
    how = FULL if request.param == "Full" else {"output.export.mergeAdapter": True}
    more = {**how, **EVALUATED, "training.maxSteps": 24}
    folder = tmp_path_factory.mktemp("undisturbed")
    model = shutil.copytree(tiny_model, folder / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    return train(folder, model, more), more


def test_the_log_tells_rewards_margins_and_accuracies(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = undisturbed
    losses = jobs.training_log(folder)
    assert losses[1] == pytest.approx(math.log(2), abs=0.2), "a new head hardly tells them apart"
    assert losses[24] < losses[1]
    for name in ("accuracy", "margin", "mean_reward"):
        assert list(jobs.training_log(folder, name)) == list(range(1, 25))
        assert list(jobs.training_log(folder, f"eval_{name}")) == [6, 12, 18, 24]
    numbers = jobs.results(folder)
    assert numbers["eval_accuracy"] == jobs.training_log(folder, "eval_accuracy")[24]
    assert "perplexity" not in numbers
    assert (folder / "final" / "plots" / "training_rewards.png").is_file()


def test_the_model_gives_the_rewards_that_were_trained(
    undisturbed: tuple[Path, dict[str, Any]], tiny_model: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, more = undisturbed
    model = AutoModelForSequenceClassification.from_pretrained(folder / "final" / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "final" / "model")
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id
    rewards = [
        (
            reward(model, tokenizer, row["prompt"] + row["chosen"]),
            reward(model, tokenizer, row["prompt"] + row["rejected"]),
        )
        for row in ROWS[0]
    ]
    better = sum(chosen > rejected for chosen, rejected in rewards) / len(rewards)
    assert better > 0.8
    if "output.export.mergeAdapter" in more:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
        adapted = PeftModel.from_pretrained(base, str(folder / "final" / "adapter"))
        chat = ROWS[0][0]["prompt"] + ROWS[0][0]["chosen"]
        assert reward(adapted, tokenizer, chat) == pytest.approx(rewards[0][0], abs=1e-5)
    card = (folder / "final" / "model" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification.from_pretrained" in card


def reward(model: Any, tokenizer: Any, chat: list[dict[str, str]]) -> float:
    """Returns what a model gives for a conversation."""
    import torch

    inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        return float(model(**inputs).logits[0, 0])


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    undisturbed: tuple[Path, dict[str, Any]], tiny_model: Path, tmp_path: Path
) -> None:
    folder, more = undisturbed
    checkpoint = folder / "out" / "checkpoint-12"
    resumed = train(tmp_path, tiny_model, more, resume_from=checkpoint)
    whole = jobs.training_log(folder)
    assert jobs.training_log(resumed) == {step: whole[step] for step in range(13, 25)}
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(folder)["weights_sha256"]


def test_the_new_head_is_drawn_from_the_seed(tiny_model: Path, tmp_path: Path) -> None:
    first = [
        jobs.training_log(
            train(tmp_path / str(number), tiny_model, {**FULL, "training.maxSteps": 1} | more)
        )[1]
        for number, more in enumerate([{}, {}, {"training.seed": 5}])
    ]
    assert first[0] == first[1] != first[2]


def test_the_mean_reward_is_kept_at_0_if_asked(tiny_model: Path, tmp_path: Path) -> None:
    curves = []
    for coefficient in (None, 1.0):
        more = {"reward": {"centerRewardsCoefficient": coefficient}, "training.maxSteps": 1}
        folder = train(tmp_path / str(coefficient), tiny_model, more)
        curves.append(jobs.training_log(folder)[1])
    assert curves[0] < curves[1]


def test_the_head_beside_an_adapter_is_trained_in_fp32(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmtrain_trainer.stages import flow

    formats: dict[str, set[str]] = {"base": set(), "trained": set()}

    def note(model: Any, step: int) -> None:
        for parameter in model.parameters():
            name = "trained" if parameter.requires_grad else "base"
            formats[name].add(str(parameter.dtype))

    monkeypatch.setattr(flow, "check_weights", note)
    train(tmp_path, tiny_model, {"training.precision": "BF16", "training.maxSteps": 2})
    assert formats == {"base": {"torch.bfloat16"}, "trained": {"torch.float32"}}


def test_a_reward_model_can_be_trained_further(tiny_model: Path, tmp_path: Path) -> None:
    first = train(tmp_path / "first", tiny_model, {**FULL, "training.maxSteps": 24})
    again = shutil.copytree(first / "final" / "model", tmp_path / "model")
    second = train(tmp_path / "second", again, {**FULL, "training.maxSteps": 2})
    assert jobs.training_log(second)[1] < jobs.training_log(first)[1] - 0.05


def test_two_processes_train_the_same_and_go_on_exactly(tiny_model: Path, tmp_path: Path) -> None:
    more = {
        "workers.processesPerNode": 2,
        "training.maxSteps": 4,
        "checkpoint.everySteps": 2,
    }
    whole = jobs.write_job(tmp_path / "whole", tiny_model, changes(**more), data=ROWS)
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(whole))
    assert done.returncode == 0, done.stdout + done.stderr
    resumed = jobs.write_job(
        tmp_path / "resumed",
        tiny_model,
        changes(**more),
        data=ROWS,
        resume_from=whole / "out" / "checkpoint-2",
    )
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(resumed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(whole)["weights_sha256"]


def test_the_reference_script_is_short_and_imports_nothing_of_ours() -> None:
    exactness.check_reference("reward_reference.py")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "processes", [pytest.param(1, id="in one process"), pytest.param(2, id="in two processes")]
)
def test_the_curves_equal_plain_trl_bit_for_bit(processes: int, tmp_path: Path) -> None:
    tiny.build_model(tmp_path / "model")
    rows = [
        {name: row["prompt"] + row[name] for name in ("chosen", "rejected")}
        for row in tiny.preference_rows(114)  # 68 to train on: an epoch's last step has 4.
    ]
    for row in rows[::9]:  # Dropped.
        row["rejected"] = [row["rejected"][0], {"role": "assistant", "content": "red " * 60}]
    (tmp_path / "rows.jsonl").write_bytes(tiny.jsonl(rows))
    spec = {
        "stage": "Reward",
        "datasets": [{"uri": f"file://{tmp_path}/rows.jsonl", "format": "Preference"}],
        "reward": {"centerRewardsCoefficient": 0.01, "disableDropout": False},
        "training": {**exactness.TRAINING, "maxLength": 48},
    }
    ours, theirs = exactness.run_both(tmp_path, processes, "reward_reference.py", spec)
    dropped = json.loads((tmp_path / "out" / "results" / "all_results.json").read_text())
    assert dropped["data_dropped"] == len(rows[::9])
    names = ["loss", "grad_norm", "eval_loss"]
    names += [prefix + name for prefix in ("", "eval_") for name in ("margin", "accuracy")]
    curves = {name: name for name in names} | {"lr": "learning_rate"}
    exactness.compare(ours, theirs, curves, processes)
    adapter = "adapter/adapter_model.safetensors"
    assert exactness.sha256(tmp_path / "out" / adapter) == exactness.sha256(
        tmp_path / "theirs" / adapter
    )
