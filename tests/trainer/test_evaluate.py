"""The stage Evaluate on a tiny model, held against plain transformers and PEFT."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jobs
import pytest
import tiny

from llmtrain_api.exits import ExitClass
from llmtrain_trainer import workdir, worker
from llmtrain_trainer.workdir import Job, RankFailure

pytestmark = pytest.mark.torch

ROWS = tiny.alpaca_rows(30)
ANSWERS = {"predict": {"maxNewTokens": 16}}
ADAPTER_URI = "s3://runs/sft/adapter/"


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "stage": "Evaluate",
        "model": {"uri": "s3://models/tiny/"},
        "datasets": [{"uri": "s3://data/0.jsonl", "format": "Alpaca"}],
        "evaluate": {"batchSize": 4, "maxLength": 128},
        "output": {"uri": "s3://runs/evaluate/"},
        **changes,
    }


def write_job(
    folder: Path,
    model: Path,
    *data: Sequence[Mapping[str, Any]],
    adapter: Path | None = None,
    **changes: Any,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, rows in enumerate(data or [ROWS]):
        path = folder / f"{number}.jsonl"
        path.write_bytes(tiny.jsonl([dict(row) for row in rows]))
        files.append(jobs.input_file(path, f"s3://data/{path.name}").to_dict())
    if adapter is not None:
        changes["model"] = {"uri": "s3://models/tiny/", "adapterUri": ADAPTER_URI}
    job = {
        "run": {"name": "measured", "attempt": 1, "spec": spec(**changes)},
        "restart": 0,
        "node": 0,
        "modelPath": str(model),
        "adapterPath": str(adapter or ""),
        "datasetFiles": files,
    }
    parsed = Job.model_validate(job)
    (folder / workdir.JOB).write_text(parsed.model_dump_json(by_alias=True))
    return folder


def answers(folder: Path) -> list[dict[str, str]]:
    text = (folder / "final" / "results" / "generated_predictions.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def failure(folder: Path) -> RankFailure:
    assert worker.main([str(folder)]) != 0
    return jobs.failure(folder)


def plain_losses(model: Any, tokenizer: Any) -> tuple[float, int, int]:
    """Returns the sum of the loss on all answers, their tokens, and those foretold, row by row."""
    import torch

    total, count, correct = 0.0, 0, 0
    for row in ROWS:
        prompt = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n"
        asked = tokenizer(prompt)["input_ids"]
        ids = tokenizer(f"{prompt}{row['output']}<|im_end|>\n")["input_ids"]
        assert ids[: len(asked)] == asked
        labels = torch.tensor([[-100] * len(asked) + ids[len(asked) :]])
        with torch.no_grad():
            said = model(input_ids=torch.tensor([ids]), labels=labels)
        tokens = len(ids) - len(asked)
        total += said.loss.item() * tokens
        count += tokens
        likeliest = said.logits[0, len(asked) - 1 : -1].argmax(-1).tolist()
        correct += sum(a == b for a, b in zip(likeliest, ids[len(asked) :], strict=True))
    return total, count, correct


@pytest.fixture(scope="module")
def measured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run with losses and answers, four rows at once."""
    settings = {"batchSize": 4, "maxLength": 128, **ANSWERS}
    folder = write_job(tmp_path_factory.mktemp("measured"), tiny_model, evaluate=settings)
    assert worker.main([str(folder)]) == 0
    return folder


def test_the_loss_is_that_of_plain_transformers(measured: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    total, count, correct = plain_losses(model, tokenizer)
    found = jobs.results(measured)
    assert found["eval_loss"] == pytest.approx(total / count, abs=1e-6)
    assert found["eval_perplexity"] == math.exp(found["eval_loss"])
    assert found["eval_mean_token_accuracy"] == correct / count
    assert found["eval_tokens"] == count
    assert found["eval_samples"] == found["rows"] == found["predict_samples"] == len(ROWS)


def test_answers_are_those_of_plain_generate(measured: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    assert [line["label"] for line in answers(measured)] == [row["output"] for row in ROWS]
    for line, row in zip(answers(measured), ROWS, strict=True):
        asked = [{"role": "user", "content": row["instruction"]}]
        batch = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        said = model.generate(**batch, max_new_tokens=16, do_sample=False)
        new = said[0, batch["input_ids"].shape[1] :]
        assert line["predict"] == tokenizer.decode(new, skip_special_tokens=True)
        assert line["prompt"] == tokenizer.decode(batch["input_ids"][0])


def test_the_scores_are_there(measured: Path) -> None:
    found = jobs.results(measured)
    for name in ("bleu-4", "rouge-1", "rouge-2", "rouge-l"):
        assert 0 <= found[f"predict_{name}"] <= 100
    assert found["eval_samples_per_second"] > 0
    assert found["predict_runtime"] > 0


def test_progress_counts_batches_to_the_end(measured: Path) -> None:
    lines = [json.loads(line) for line in (measured / "trainer_log.jsonl").read_text().splitlines()]
    assert {line["total_steps"] for line in lines} == {math.ceil(len(ROWS) / 4)}
    assert lines[-1]["current_steps"] == lines[-1]["total_steps"]
    assert lines[-1]["eval_loss"] == jobs.results(measured)["eval_loss"]
    assert json.loads((measured / "activity.json").read_text())["activity"] == "Finishing"


def test_there_is_no_model_and_no_card(measured: Path) -> None:
    found = sorted(path.name for path in (measured / "final").rglob("*") if path.is_file())
    assert found == [".done", "all_results.json", "generated_predictions.jsonl"]
    resolved = json.loads((measured / "resolved.json").read_text())
    assert (resolved["precision"], resolved["trainableParameters"]) == ("FP32", 0)


def test_two_processes_measure_what_one_does(tiny_model: Path, tmp_path: Path) -> None:
    rows = ROWS[:9]  # So that one process has a row more.
    settings = {"maxLength": 128, **ANSWERS}
    one = write_job(tmp_path / "one", tiny_model, rows, evaluate=settings)
    assert worker.main([str(one)]) == 0
    workers = {"processesPerNode": 2}
    two = write_job(tmp_path / "two", tiny_model, rows, evaluate=settings, workers=workers)
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(two))
    assert done.returncode == 0, done.stdout + done.stderr
    assert answers(two) == answers(one)
    timed = ("runtime", "per_second")
    numbers = [
        {name: value for name, value in jobs.results(each).items() if not name.endswith(timed)}
        for each in (one, two)
    ]
    assert numbers[0] == numbers[1]
    assert numbers[0]["eval_samples"] == 9


def test_running_text_is_measured_in_pieces(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["red blue " * 20, "x", "green"]
    folder = write_job(
        tmp_path,
        tiny_model,
        [{"text": text} for text in texts],
        datasets=[{"uri": "s3://data/0.jsonl", "format": "Text"}],
        evaluate={"maxLength": 16, "batchSize": 3},
    )
    assert worker.main([str(folder)]) == 0
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    total, count = 0.0, 0
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        for begin in range(0, len(ids) - 1, 15):
            piece = torch.tensor([ids[begin : begin + 16]])
            with torch.no_grad():
                total += model(piece, labels=piece).loss.item() * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    found = jobs.results(folder)
    assert found["eval_loss"] == pytest.approx(total / count, abs=1e-6)
    assert found["eval_tokens"] == count
    assert (found["eval_samples"], found["data_dropped"]) == (2, 1)


def make_adapter(model: Path, folder: Path) -> Path:
    """Saves an adapter that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(str(folder))
    return folder


def test_an_adapter_is_measured_on_its_base(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    settings = {"maxLength": 128, "predict": {"maxNewTokens": 4}}
    folder = write_job(tmp_path / "job", tiny_model, adapter=adapter, evaluate=settings)
    assert worker.main([str(folder)]) == 0
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    before, count, _ = plain_losses(base, tokenizer)
    total, _, _ = plain_losses(PeftModel.from_pretrained(base, str(adapter)), tokenizer)
    assert jobs.results(folder)["eval_loss"] == pytest.approx(total / count, abs=1e-6)
    assert abs(total - before) / count > 1e-3


def test_sampling_is_a_function_of_the_seed(tiny_model: Path, tmp_path: Path) -> None:
    said = []
    for number, seed in enumerate((7, 7, 8)):
        predict = {"maxNewTokens": 8, "doSample": True, "temperature": 2.0}
        settings = {"maxLength": 128, "seed": seed, "predict": predict}
        folder = write_job(tmp_path / str(number), tiny_model, ROWS[:2], evaluate=settings)
        assert worker.main([str(folder)]) == 0
        said.append([line["predict"] for line in answers(folder)])
    assert said[0] == said[1] != said[2]


def test_a_prompt_that_is_too_long_is_not_answered(tiny_model: Path, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "red"},
        {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "green " * 60},
        {"role": "assistant", "content": "small"},
    ]
    folder = write_job(
        tmp_path,
        tiny_model,
        [{"messages": turns}, {"messages": turns[:2]}],
        datasets=[{"uri": "s3://data/0.jsonl", "format": "Messages"}],
        evaluate={"maxLength": 32, "predict": {"maxNewTokens": 4}},
    )
    assert worker.main([str(folder)]) == 0
    found = jobs.results(folder)
    assert (found["eval_samples"], found["data_truncated"], found["data_unanswered"]) == (2, 1, 1)
    assert [line["label"] for line in answers(folder)] == ["blue"]


def test_plain_prompts_are_answered_as_plain_text(tiny_model: Path, tmp_path: Path) -> None:
    folder = write_job(
        tmp_path,
        tiny_model,
        [{"prompt": "Sort: blue red", "completion": " blue red"}],
        datasets=[{"uri": "s3://data/0.jsonl", "format": "PromptCompletion"}],
        evaluate={"maxLength": 64, "predict": {"maxNewTokens": 4}},
    )
    assert worker.main([str(folder)]) == 0
    (line,) = answers(folder)
    assert (line["prompt"], line["label"]) == ("Sort: blue red", " blue red")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(
            {"num_hidden_layers": 1}, "it has no place for 14 of 28 parts", id="of fewer layers"
        ),
        pytest.param({"hidden_size": 32}, "size mismatch", id="of another width"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    change: dict[str, int], problem: str, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    other = shutil.copytree(tiny_model, tmp_path / "other")
    config = AutoConfig.from_pretrained(tiny_model)
    for name, value in change.items():
        setattr(config, name, value)
    from_config: Any = AutoModelForCausalLM.from_config
    from_config(config).save_pretrained(other)
    told = failure(write_job(tmp_path / "job", other, adapter=adapter))
    assert told.exit_class is ExitClass.CONFIG
    assert told.message.startswith(
        f"model.adapterUri: {ADAPTER_URI} does not fit s3://models/tiny/"
    )
    assert problem in told.message


def test_weights_that_are_not_finite_are_named(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.nan)
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    model.save_pretrained(broken)
    told = failure(write_job(tmp_path / "job", broken))
    assert told.exit_class is ExitClass.DATA
    assert "its loss of s3://data/0.jsonl, line" in told.message


def test_rows_without_anything_to_measure_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    told = failure(write_job(tmp_path, tiny_model, evaluate={"maxLength": 8}))
    assert told.exit_class is ExitClass.DATA
    assert "none of 30 rows has a token to measure within evaluate.maxLength (8)" in told.message


def test_a_checkpoint_of_a_run_is_measured_from_the_manifest_to_the_end(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Trains two steps of all weights, then measures the checkpoint and the model, which agree."""
    (tmp_path / "rows.jsonl").write_bytes(tiny.jsonl(ROWS))
    data = [{"uri": f"file://{tmp_path}/rows.jsonl", "format": "Alpaca"}]
    training = {
        "maxSteps": 2,
        "globalBatchSize": 2,
        "maxLength": 128,
        "learningRate": 1.0e-3,
    }

    def launch(name: str, **spec: Any) -> str:
        run_file = tmp_path / f"{name}.json"
        output = {"uri": f"file://{tmp_path}/{name}/"}
        run = {"name": name, "spec": {"datasets": data, "output": output, **spec}}
        run_file.write_text(json.dumps(run))
        scratch = ("--scratch", str(tmp_path / "scratch"))
        done = jobs.run_processes(1, "-m", "llmtrain_trainer", str(run_file), *scratch)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    launch(
        "trained",
        stage="SFT",
        model={"uri": f"file://{tiny_model}/"},
        tuning={"method": "Full"},
        training=training,
        checkpoint={"everySteps": 2},
    )
    found = []
    for name, folder in (("checkpoint", "checkpoints/2-a1r0"), ("final", "model")):
        model = {"uri": f"file://{tmp_path}/trained/{folder}/"}
        evaluate = {"maxLength": 128}
        told = launch(name, stage="Evaluate", model=model, evaluate=evaluate)
        assert "results:" in told
        results = tmp_path / name / "results" / "all_results.json"
        found.append(json.loads(results.read_text())["eval_loss"])
        assert (tmp_path / name / "model" / "manifest.json").is_file()
    assert found[0] == found[1]
    told = launch("final", stage="Evaluate", model=model, evaluate=evaluate)
    assert "already trained" in told
    provenance = json.loads((tmp_path / "final" / "provenance.json").read_text())
    assert any(file["uri"].endswith("/model.safetensors") for file in provenance["inputs"])
