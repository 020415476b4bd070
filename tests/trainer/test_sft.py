"""Whole training runs of a tiny model in this process, through the worker's own entry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer import worker

pytestmark = pytest.mark.torch

SUCCESS, PREEMPTED = 0, EXIT_POLICIES[ExitClass.PREEMPTED].code
WITH_EVERYTHING = {
    "sft": {"packing": True},
    "evaluation": {"fraction": 0.2, "everySteps": 4},
    "output.export": {"mergeAdapter": True},
}


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run of 12 steps with LoRA, dropout, packing and evaluation."""
    folder = jobs.write_job(tmp_path_factory.mktemp("undisturbed"), tiny_model, WITH_EVERYTHING)
    assert worker.main([str(folder)]) == SUCCESS
    return folder


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def test_the_training_log_has_a_line_per_step_and_evaluation(undisturbed: Path) -> None:
    assert list(jobs.training_log(undisturbed)) == list(range(1, 13))
    assert list(jobs.training_log(undisturbed, "eval_loss")) == [4, 8, 12]
    last = [line for line in log(undisturbed) if "loss" in line][-1]
    assert last["total_steps"] == 12
    assert last["percentage"] == 100.0
    assert last["remaining_time"] == "0:00:00"
    assert last["seconds_per_step"] > 0
    assert last["throughput"] > 0
    assert {"lr", "epoch", "grad_norm", "elapsed_time"} <= last.keys()


def test_checkpoints_are_marked_and_the_last_step_has_one(undisturbed: Path) -> None:
    checkpoints = sorted(path.name for path in (undisturbed / "out").glob("checkpoint-*"))
    assert checkpoints == ["checkpoint-12", "checkpoint-6"]
    for name in checkpoints:
        assert (undisturbed / "out" / name / ".saved-rank-0").is_file()
    assert (undisturbed / "trained").is_file()


def test_what_was_chosen_is_told(undisturbed: Path) -> None:
    resolved = json.loads((undisturbed / "resolved.json").read_text())
    assert resolved["precision"] == "FP32"
    assert resolved["device"] == "cpu"
    assert resolved["gradientAccumulationSteps"] == 2
    assert 0 < resolved["trainableParameters"] < resolved["totalParameters"]
    assert json.loads((undisturbed / "activity.json").read_text())["activity"] == "Finishing"


def test_the_results_tell_loss_rows_and_tokens(undisturbed: Path) -> None:
    numbers = jobs.results(undisturbed)
    assert numbers["total_steps"] == 12
    assert numbers["train_loss"] == pytest.approx(sum(jobs.training_log(undisturbed).values()) / 12)
    assert numbers["eval_loss"] == jobs.training_log(undisturbed, "eval_loss")[12]
    assert numbers["rows"] == 60
    assert numbers["data_train"] + numbers["data_evaluation"] == 60
    assert 0 < numbers["data_trained_tokens"] < numbers["data_tokens"]
    assert len(numbers["weights_sha256"]) == 64
    assert (undisturbed / "final" / ".done").is_file()
    assert {path.name for path in (undisturbed / "final" / "plots").iterdir()} >= {
        "training_loss.png",
        "training_eval_loss.png",
        "training_learning_rate.png",
        "training_grad_norm.png",
    }


def test_speed_and_memory_are_told(undisturbed: Path) -> None:
    numbers = jobs.results(undisturbed)
    assert numbers["train_tokens_per_second"] == numbers["train_tokens_per_second_per_device"] > 0
    assert 0 <= numbers["train_data_wait"] < 1
    assert numbers["peak_memory_host"] > 100_000_000
    assert numbers["train_mfu"] is None, "what a CPU can do is not known"
    last = [line for line in log(undisturbed) if "loss" in line][-1]
    assert {"throughput_per_device", "data_wait", "peak_memory_host"} <= last.keys()


def test_the_adapter_names_its_base_by_uri_and_has_a_card(undisturbed: Path) -> None:
    adapter = undisturbed / "final" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "s3://models/tiny/"
    card = (adapter / "README.md").read_text()
    assert "s3://data/train.jsonl" in card
    assert "PeftModel.from_pretrained" in card
    assert str(undisturbed) not in card
    assert "![training_loss.png](training_loss.png)" in card
    assert (adapter / "training_loss.png").is_file()
    assert "`s3://models/tiny/` says nothing of how it was made itself." in card
    lineage = json.loads((adapter / "llmtrain-lineage.json").read_text())
    assert lineage["runs"][0]["sha256"] == jobs.results(undisturbed)["weights_sha256"]
    assert not list((undisturbed / "final").rglob("*.bin"))


def test_the_merged_model_is_the_base_with_its_adapter(undisturbed: Path, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final = undisturbed / "final"
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    merged = AutoModelForCausalLM.from_pretrained(final / "model")
    ids = AutoTokenizer.from_pretrained(final / "model")("Sort these words", return_tensors="pt")
    with torch.no_grad():
        before = base(**ids).logits
        adapted = PeftModel.from_pretrained(base, str(final / "adapter"))(**ids).logits
        torch.testing.assert_close(merged(**ids).logits, adapted, atol=1e-5, rtol=1e-5)
    assert not torch.equal(before, adapted)


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    jobs.write_job(
        tmp_path, tiny_model, WITH_EVERYTHING, resume_from=undisturbed / "out" / "checkpoint-6"
    )
    assert worker.main([str(tmp_path)]) == SUCCESS
    assert jobs.results(tmp_path)["weights_sha256"] == jobs.results(undisturbed)["weights_sha256"]
    later = {step: loss for step, loss in jobs.training_log(undisturbed).items() if step > 6}
    assert jobs.training_log(tmp_path) == later
    assert jobs.results(tmp_path)["train_loss"] == jobs.results(undisturbed)["train_loss"]


def test_a_run_that_is_stopped_saves_and_ends_with_the_same_weights_when_it_goes_on(
    undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    stopped = jobs.write_job(tmp_path / "stopped", tiny_model, WITH_EVERYTHING)
    (stopped / "stop").touch()
    assert worker.main([str(stopped)]) == PREEMPTED
    assert json.loads((stopped / "preempted").read_text()) == {"step": 1}
    checkpoint = stopped / "out" / "checkpoint-1"
    assert (checkpoint / ".saved-rank-0").is_file()
    assert not (stopped / "final").exists()
    resumed = jobs.write_job(
        tmp_path / "resumed", tiny_model, WITH_EVERYTHING, resume_from=checkpoint
    )
    assert worker.main([str(resumed)]) == SUCCESS
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(undisturbed)["weights_sha256"]


def test_activation_checkpointing_changes_no_number(
    undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    changes = {**WITH_EVERYTHING, "training.activationCheckpointing": True}
    jobs.write_job(tmp_path, tiny_model, changes)
    assert worker.main([str(tmp_path)]) == SUCCESS
    assert jobs.training_log(tmp_path) == pytest.approx(jobs.training_log(undisturbed), rel=1e-6)


def test_a_run_whose_training_was_over_only_finishes(
    undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    jobs.write_job(
        tmp_path, tiny_model, WITH_EVERYTHING, resume_from=undisturbed / "out" / "checkpoint-12"
    )
    assert worker.main([str(tmp_path)]) == SUCCESS
    for name in ("weights_sha256", "train_loss", "total_steps"):
        assert jobs.results(tmp_path)[name] == jobs.results(undisturbed)[name]


def test_a_run_that_was_over_in_the_middle_of_an_epoch_trains_no_step_more(
    undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    checkpoint = undisturbed / "out" / "checkpoint-6"
    changes = {**WITH_EVERYTHING, "training.maxSteps": 6}
    jobs.write_job(tmp_path, tiny_model, changes, resume_from=checkpoint)
    assert worker.main([str(tmp_path)]) == SUCCESS
    assert not (tmp_path / "out" / "checkpoint-7").exists()
    assert jobs.results(tmp_path)["total_steps"] == 6
    saved = (checkpoint / "adapter_model.safetensors").read_bytes()
    final = tmp_path / "final" / "adapter" / "adapter_model.safetensors"
    assert final.read_bytes() == saved


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        pytest.param("LoRA", {"base": "bfloat16", "trained": "float32"}, id="LoRA"),
        pytest.param("Full", {"trained": "float32"}, id="full tuning"),
    ],
)
def test_what_is_trained_stays_in_fp32_beside_bf16(
    method: str,
    expected: dict[str, str],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llmtrain_trainer.stages import flow

    formats: dict[str, str] = {}

    def note(model: Any, step: int) -> None:
        for parameter in model.parameters():
            name = "trained" if parameter.requires_grad else "base"
            formats[name] = str(parameter.dtype).removeprefix("torch.")

    monkeypatch.setattr(flow, "check_weights", note)
    changes = {
        "tuning": {"method": method},
        "training.precision": "BF16",
        "training.maxSteps": 2,
        "output.export": {"mergeAdapter": method == "LoRA"},
    }
    folder = jobs.write_job(tmp_path / "work", in_bf16(tiny_model, tmp_path / "model"), changes)
    assert worker.main([str(folder)]) == SUCCESS
    assert formats == expected
    assert json.loads((folder / "resolved.json").read_text())["precision"] == "BF16"
    stored = json.loads((folder / "final" / "model" / "config.json").read_text())
    assert stored["dtype"] == "bfloat16", "the result is stored as its base was"


def in_bf16(model: Path, folder: Path) -> Path:
    """Returns a copy of `model` that is stored in bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(model, folder)
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def test_long_rows_are_cut_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    short, long = {"prompt": "a", "completion": "b"}, "red " * 200
    data = [
        [
            *[short] * 4,
            {"prompt": "a", "completion": long},
            {"prompt": long, "completion": "b"},
        ]
    ]
    datasets = [{"uri": "s3://data/a.jsonl", "format": "PromptCompletion"}]
    changes = {"datasets": datasets, "training.maxSteps": 1, "training.maxLength": 32}
    jobs.write_job(tmp_path, tiny_model, changes, data=data)
    assert worker.main([str(tmp_path)]) == SUCCESS
    numbers = jobs.results(tmp_path)
    assert (numbers["rows"], numbers["data_train"]) == (6, 5)
    assert (numbers["data_truncated"], numbers["data_dropped"]) == (2, 1)


@pytest.mark.parametrize("pad_is_end", [False, True], ids=["own padding", "padding is the end"])
def test_a_fully_tuned_model_answers_and_stops(
    pad_is_end: bool, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = "<|endoftext|>"  # As in many base models: not what ends a turn.
    tokenizer.pad_token = "<|im_end|>" if pad_is_end else "<|im_start|>"
    tokenizer.save_pretrained(model)
    (model / "generation_config.json").write_text('{"eos_token_id": 0, "_from_model_config": true}')
    rows = [
        {"instruction": "Say a colour", "output": "red blue"},
        {"instruction": "Say a size", "output": "small"},
    ]
    changes = {
        "tuning": {"method": "Full"},
        "training.maxSteps": 60,
        "training.loggingSteps": 60,
        "checkpoint.everySteps": 100,
    }
    folder = jobs.write_job(tmp_path / "work", model, changes, data=[rows * 4])
    assert worker.main([str(folder)]) == SUCCESS
    trained: Any = AutoModelForCausalLM.from_pretrained(folder / "final" / "model")
    for row in rows:
        question = [{"role": "user", "content": row["instruction"]}]
        text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        ids = tokenizer([text], add_special_tokens=False, return_tensors="pt").input_ids
        answer = trained.generate(ids, do_sample=False, max_new_tokens=40)
        assert tokenizer.decode(answer[0, ids.shape[1] :]) == f"{row['output']}<|im_end|>"


def test_two_processes_stop_at_the_same_step_and_go_on_exactly(
    tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"workers.processesPerNode": 2, "training.maxSteps": 4}
    whole = jobs.write_job(tmp_path / "whole", tiny_model, changes)
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(whole))
    assert done.returncode == 0, done.stdout + done.stderr
    hashes = [line.split()[-4] for line in done.stdout.splitlines() if "weights sha256" in line]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1

    stopped = jobs.write_job(tmp_path / "stopped", tiny_model, changes)
    (stopped / "stop").touch()
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(stopped))
    assert done.returncode != 0
    assert json.loads((stopped / "preempted").read_text()) == {"step": 1}
    checkpoint = stopped / "out" / "checkpoint-1"
    assert {path.name for path in checkpoint.glob(".saved-*")} == {".saved-rank-0", ".saved-rank-1"}
    assert not list(stopped.glob("failure-*"))

    resumed = jobs.write_job(tmp_path / "resumed", tiny_model, changes, resume_from=checkpoint)
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(resumed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(whole)["weights_sha256"]
