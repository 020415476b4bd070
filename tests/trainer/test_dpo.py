"""DPO runs of a tiny model: losses, references, reports, restarts, and equality with plain TRL."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import exactness
import jobs
import pytest
import tiny

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.stages.preference import LossType
from llmtrain_trainer import worker

pytestmark = pytest.mark.torch

SUCCESS = 0
DATASETS = [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}]
FULL = {"tuning": {"method": "Full"}, "training.learningRate": 1.0e-3}
ROWS = [tiny.preference_rows(60)]


def changes(**more: Any) -> dict[str, Any]:
    return {"stage": "DPO", "datasets": DATASETS, "tuning.lora.dropout": 0, **more}


def train(folder: Path, model: Path, more: Mapping[str, Any], **job: Any) -> Path:
    """Runs a job to its end and returns its folder."""
    jobs.write_job(folder, model, changes(**more), **{"data": ROWS, **job})
    assert worker.main([str(folder)]) == SUCCESS
    return folder


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run of 12 steps with LoRA, evaluation and the adapter merged in."""
    more = {"evaluation": {"fraction": 0.2, "everySteps": 6}, "output.export.mergeAdapter": True}
    return train(tmp_path_factory.mktemp("undisturbed"), tiny_model, more)


def test_the_log_tells_rewards_margins_and_accuracies(undisturbed: Path) -> None:
    losses = jobs.training_log(undisturbed)
    assert list(losses) == list(range(1, 13))
    assert losses[1] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[12] < losses[1]
    for name in ("chosen", "rejected", "margins", "accuracies"):
        assert list(jobs.training_log(undisturbed, f"rewards/{name}")) == list(range(1, 13))
        assert list(jobs.training_log(undisturbed, f"eval_rewards/{name}")) == [6, 12]
    chosen, rejected, margins = (
        jobs.training_log(undisturbed, f"rewards/{name}")[12]
        for name in ("chosen", "rejected", "margins")
    )
    assert margins == pytest.approx(chosen - rejected, abs=1e-5)
    accuracies = jobs.training_log(undisturbed, "rewards/accuracies")
    assert jobs.training_log(undisturbed, "accuracy") == accuracies


def test_the_results_tell_the_last_rewards_and_no_perplexity(undisturbed: Path) -> None:
    numbers = jobs.results(undisturbed)
    assert numbers["rewards/margins"] == jobs.training_log(undisturbed, "rewards/margins")[12]
    assert (
        numbers["eval_rewards/accuracies"]
        == (jobs.training_log(undisturbed, "eval_rewards/accuracies")[12])
    )
    assert numbers["eval_loss"] == jobs.training_log(undisturbed, "eval_loss")[12]
    assert "perplexity" not in numbers
    assert numbers["data_train"] + numbers["data_evaluation"] == numbers["rows"] == 60
    assert 0 < numbers["data_trained_tokens"] < numbers["data_tokens"]
    plots = undisturbed / "final" / "plots"
    for name in ("training_loss.png", "training_rewards.png"):
        assert (plots / name).read_bytes().startswith(b"\x89PNG")


def test_the_card_says_how_it_was_aligned(undisturbed: Path) -> None:
    card = (undisturbed / "final" / "adapter" / "README.md").read_text()
    assert "A LoRA adapter for direct preference optimisation" in card
    assert "The reference model was `s3://models/tiny/`." in card
    assert str(undisturbed) not in card


def test_the_merged_model_prefers_what_was_chosen(undisturbed: Path, tiny_model: Path) -> None:
    before, after = (margins(model) for model in (tiny_model, undisturbed / "final" / "model"))
    assert sum(after) > sum(before)


def margins(model: Path) -> list[float]:
    """Returns how much more likely a model has the chosen answers than the rejected ones."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    for row in tiny.preference_rows(10):
        likely = []
        for answer in ("chosen", "rejected"):
            text = tokenizer.apply_chat_template(row["prompt"] + row[answer], tokenize=False)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                likely.append(-float(loaded(ids, labels=ids).loss) * ids.shape[1])
        found.append(likely[0] - likely[1])
    return found


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    more = {"evaluation": {"fraction": 0.2, "everySteps": 6}, "output.export.mergeAdapter": True}
    checkpoint = undisturbed / "out" / "checkpoint-6"
    resumed = train(tmp_path, tiny_model, more, resume_from=checkpoint)
    whole = jobs.training_log(undisturbed)
    assert jobs.training_log(resumed) == {step: whole[step] for step in range(7, 13)}
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(undisturbed)["weights_sha256"]


@pytest.fixture(scope="module")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the tiny model with other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("precomputed", [False, True], ids=["asked", "precomputed"])
@pytest.mark.parametrize("full", [False, True], ids=["LoRA", "full tuning"])
def test_without_a_reference_the_model_itself_as_it_was_is_one(
    full: bool,
    precomputed: bool,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TRL alone would look for the reference where the model's configuration says it came from.
    monkeypatch.setattr("trl.trainer.dpo_trainer.create_model_from_path", None)
    more = {"dpo": {"precomputeRefLogProbs": precomputed}, "training.maxSteps": 4}
    losses = jobs.training_log(train(tmp_path, tiny_model, more | (FULL if full else {})))
    assert losses[1] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[4] != losses[1]


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_what_was_precomputed_changes_no_loss(
    method: str, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    curves = []
    for precomputed in (False, True):
        dpo = {
            "referenceModel": {"uri": "s3://models/other/"},
            "precomputeRefLogProbs": precomputed,
        }
        more = {
            **(FULL if method == "Full" else {}),
            "dpo": dpo,
            "training.maxSteps": 4,
            "evaluation": {"fraction": 0.2},
        }
        folder = train(tmp_path / str(precomputed), tiny_model, more, reference=other_model)
        curves.append([*jobs.training_log(folder).values(), jobs.results(folder)["eval_loss"]])
    assert curves[0] == pytest.approx(curves[1], abs=1e-6)
    assert curves[0][0] != pytest.approx(math.log(2), abs=1e-3), "the reference is another model"


@pytest.mark.parametrize("loss", get_args(LossType))
def test_every_loss_of_trl_trains(loss: str, tiny_model: Path, tmp_path: Path) -> None:
    smoothing = {"labelSmoothing": 0.1} if loss in ("exo_pair", "robust") else {}
    more = {"dpo": {"lossType": [loss], **smoothing}, "training.maxSteps": 2}
    losses = jobs.training_log(train(tmp_path, tiny_model, more))
    assert len(losses) == 2
    assert all(math.isfinite(value) for value in losses.values())
    # At first the model is its own reference: all log-ratios are 0.
    expected = {
        "sigmoid": math.log(2),
        "hinge": 1.0,
        "ipo": 25.0,
        "robust": math.log(2),
        "bco_pair": 2 * math.log(2),
        "nca_pair": 2 * math.log(2),
        "sppo_hard": 50.0,
        "aot": math.log(2),
        "aot_unpaired": math.log(2),
        "apo_zero": 1.0,
        "apo_down": 1.0,
        "sigmoid_norm": math.log(2),
    }
    if loss in expected:
        assert losses[1] == pytest.approx(expected[loss], rel=1e-5)


def test_losses_are_added_up_by_their_weights(tiny_model: Path, tmp_path: Path) -> None:
    dpo = {"lossType": ["sigmoid", "hinge"], "lossWeights": [0.5, 2], "beta": 0.3}
    losses = jobs.training_log(train(tmp_path, tiny_model, {"dpo": dpo, "training.maxSteps": 1}))
    assert losses[1] == pytest.approx(0.5 * math.log(2) + 2, rel=1e-6)


@pytest.mark.parametrize("how", [{}, FULL], ids=["LoRA", "full tuning"])
def test_activation_checkpointing_changes_no_loss(
    how: Mapping[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    curves = []
    for checkpointing in (False, True):
        more = {**how, "training.activationCheckpointing": checkpointing, "training.maxSteps": 3}
        curves.append(jobs.training_log(train(tmp_path / str(checkpointing), tiny_model, more)))
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ("more", "exit_class", "message"),
    [
        pytest.param(
            {"training.arguments": {"use_weighting": True}, "dpo": {"lossType": ["aot"]}},
            ExitClass.CONFIG,
            "training: TRL or transformers refuses these settings (WPO-style weighting is not",
            id="settings that TRL does not take together",
        ),
        pytest.param(
            {"training.maxLength": 8},
            ExitClass.DATA,
            "of 60 rows 60 have no trained token within training.maxLength (8)",
            id="no answer within the length",
        ),
    ],
)
def test_what_cannot_work_is_told_in_the_failure_file(
    more: Mapping[str, Any],
    exit_class: ExitClass,
    message: str,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    jobs.write_job(tmp_path, tiny_model, changes(**more), data=ROWS)
    assert worker.main([str(tmp_path)]) == EXIT_POLICIES[exit_class].code
    assert message in jobs.failure(tmp_path).message


def test_a_reference_with_other_words_is_refused(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    strange = shutil.copytree(other_model, tmp_path / "strange")
    tokenizer = AutoTokenizer.from_pretrained(strange)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(strange)
    more = {"dpo": {"referenceModel": {"uri": "s3://models/strange/"}}}
    folder = tmp_path / "work"
    jobs.write_job(folder, tiny_model, changes(**more), data=ROWS, reference=strange)
    assert worker.main([str(folder)]) == EXIT_POLICIES[ExitClass.CONFIG].code
    assert jobs.failure(folder).message.startswith(
        "dpo.referenceModel.uri: s3://models/strange/ has another tokenizer than s3://models/tiny/"
    )


def test_two_processes_train_the_same_and_go_on_exactly(tiny_model: Path, tmp_path: Path) -> None:
    more = {
        **FULL,
        "dpo": {"precomputeRefLogProbs": True},
        "workers.processesPerNode": 2,
        "training.maxSteps": 4,
        "checkpoint.everySteps": 2,
    }
    whole = jobs.write_job(tmp_path / "whole", tiny_model, changes(**more), data=ROWS)
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(whole))
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs.training_log(whole)[1] == pytest.approx(math.log(2), abs=1e-6)
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
    exactness.check_reference("dpo_reference.py")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "processes", [pytest.param(1, id="in one process"), pytest.param(2, id="in two processes")]
)
def test_the_curves_equal_plain_trl_bit_for_bit(processes: int, tmp_path: Path) -> None:
    tiny.build_model(tmp_path / "model")
    rows = tiny.preference_rows(116)  # 100 to train on: the last step of an epoch has 4.
    for number, row in enumerate(rows):
        if number % 3 == 0:
            row["prompt"].insert(0, {"role": "system", "content": "Sort."})
        if number % 5 == 0:  # Cut.
            row["chosen"] = [{"role": "assistant", "content": "red " * 60}]
        if number % 40 == 0:  # Dropped.
            row["prompt"] = [{"role": "user", "content": "red " * 60}]
    (tmp_path / "rows.jsonl").write_bytes(tiny.jsonl(rows))
    spec = {
        "stage": "DPO",
        "datasets": [{"uri": f"file://{tmp_path}/rows.jsonl", "format": "Preference"}],
        "dpo": {
            "beta": 0.2,
            "lossType": ["sigmoid", "robust", "sft"],
            "lossWeights": [1.0, 0.5, 0.1],
            "labelSmoothing": 0.1,
            "disableDropout": False,
        },
        "training": {**exactness.TRAINING, "maxLength": 48},
    }
    ours, theirs = exactness.run_both(tmp_path, processes, "dpo_reference.py", spec)
    names = ["loss", "grad_norm", "eval_loss"]
    names += [
        prefix + name
        for prefix in ("", "eval_")
        for name in ("rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen")
    ]
    curves = {name: name for name in names} | {"lr": "learning_rate"}
    exactness.compare(ours, theirs, curves, processes)
    adapter = "adapter/adapter_model.safetensors"
    assert exactness.sha256(tmp_path / "out" / adapter) == exactness.sha256(
        tmp_path / "theirs" / adapter
    )
