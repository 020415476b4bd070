"""Whole pretraining runs of tiny models, new and continued, through the worker's own entry."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jobs
import pytest
import specs
from corpora import CONTINUED, NEW, SIZES, documents

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.stages.pretrain import Architecture
from llmtrain_trainer import worker
from llmtrain_trainer.workdir import Job

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

SUCCESS, PREEMPTED = 0, EXIT_POLICIES[ExitClass.PREEMPTED].code
FAMILIES: tuple[str, ...] = get_args(Architecture.model_fields["family"].annotation)


def write(folder: Path, model: Path, changes: Mapping[str, Any], **more: Any) -> Path:
    return jobs.write_job(folder, model, changes, data=[documents(80)], **more)


@pytest.fixture(scope="module")
def undisturbed(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run of 12 steps of a new model, over more than an epoch."""
    folder = write(tmp_path_factory.mktemp("undisturbed"), tokenizer, NEW)
    assert worker.main([str(folder)]) == SUCCESS
    return folder


def log(folder: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_a_new_model_learns_and_is_loaded_by_plain_transformers(
    undisturbed: Path, tokenizer: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert log(undisturbed, "loss")[-1] < log(undisturbed, "loss")[0] - 0.5
    model: Any = AutoModelForCausalLM.from_pretrained(undisturbed / "final" / "model")
    loaded = AutoTokenizer.from_pretrained(undisturbed / "final" / "model")
    original = AutoTokenizer.from_pretrained(tokenizer)
    assert loaded.get_vocab() == original.get_vocab()
    assert model.dtype is torch.float32
    assert model.config.eos_token_id == loaded.eos_token_id
    assert model.get_input_embeddings().weight.shape[0] % 64 == 0
    assert model.get_input_embeddings().weight.shape[0] - len(loaded) in range(64)
    ids = loaded("red blue green", return_tensors="pt").input_ids
    assert model(ids).logits.isfinite().all()


def test_the_results_tell_of_documents_and_perplexity(undisturbed: Path) -> None:
    import math

    numbers = jobs.results(undisturbed)
    assert numbers["total_steps"] == 12
    assert numbers["rows"] == 80
    assert numbers["data_train"] + numbers["data_evaluation"] == 80
    assert numbers["data_trained_tokens"] == numbers["data_tokens"] > 0
    assert numbers["eval_loss"] == log(undisturbed, "eval_loss")[-1]
    assert numbers["perplexity"] == pytest.approx(math.exp(numbers["eval_loss"]))
    assert len(log(undisturbed, "eval_loss")) == 3
    # Each step trains 4 sequences of 48 tokens; the epoch's last sequence is shorter.
    assert 11 * 4 * 48 < log(undisturbed, "total_tokens")[-1] < 12 * 4 * 48
    assert log(undisturbed, "throughput")[-1] > 0


def test_parameters_are_counted_and_told(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM

    resolved = json.loads((undisturbed / "resolved.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(undisturbed / "final" / "model")
    assert resolved["totalParameters"] == resolved["trainableParameters"] == model.num_parameters()


def test_the_card_tells_what_the_model_was_made_of(undisturbed: Path) -> None:
    card = (undisturbed / "final" / "model" / "README.md").read_text()
    for part in (
        "A new model of the family gpt2, trained from random weights with the tokenizer of"
        " `s3://models/tokenizer/` by llmtrain.",
        "- pretrain\n",
        "hiddenSize: 32",
        "Dropped documents have no text; every token of the others is trained.",
        "AutoModelForCausalLM.from_pretrained",
    ):
        assert part in card
    assert str(undisturbed) not in card


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    undisturbed: Path, tokenizer: Path, tmp_path: Path
) -> None:
    stopped = write(tmp_path / "stopped", tokenizer, NEW)
    (stopped / "stop").touch()
    assert worker.main([str(stopped)]) == PREEMPTED
    step = json.loads((stopped / "preempted").read_text())["step"]
    assert step == 1
    checkpoint = stopped / "out" / f"checkpoint-{step}"
    resumed = write(tmp_path / "resumed", tokenizer, NEW, resume_from=checkpoint)
    assert worker.main([str(resumed)]) == SUCCESS
    assert jobs.results(resumed)["weights_sha256"] == jobs.results(undisturbed)["weights_sha256"]
    middle = undisturbed / "out" / "checkpoint-6"  # In its second epoch.
    later = write(tmp_path / "later", tokenizer, NEW, resume_from=middle)
    assert worker.main([str(later)]) == SUCCESS
    assert jobs.results(later)["weights_sha256"] == jobs.results(undisturbed)["weights_sha256"]


def test_two_processes_learn_what_one_learns(tokenizer: Path, tmp_path: Path) -> None:
    llama = {"architecture": {"family": "llama", **SIZES}}  # Without dropout.
    changes = {**NEW, **llama, "training.maxSteps": 6}  # Less than an epoch.
    one = write(tmp_path / "one", tokenizer, changes)
    assert worker.main([str(one)]) == SUCCESS
    two = write(tmp_path / "two", tokenizer, {**changes, "workers.processesPerNode": 2})
    done = jobs.run_processes(2, "-m", "llmtrain_trainer.worker", str(two))
    assert done.returncode == 0, done.stdout + done.stderr
    assert log(two, "loss") == pytest.approx(log(one, "loss"), abs=1e-5)
    assert log(two, "grad_norm") == pytest.approx(log(one, "grad_norm"), abs=1e-4)
    assert log(two, "total_tokens") == log(one, "total_tokens")


@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_a_model_is_pretrained_further(method: str, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    export = {"output.export": {"mergeAdapter": True}} if method == "LoRA" else {}
    changes = {**CONTINUED, "tuning": {"method": method}, **export}
    folder = write(tmp_path, tiny_model, changes)
    assert worker.main([str(folder)]) == SUCCESS
    assert log(folder, "eval_loss")[-1] < log(folder, "loss")[0] - 0.3
    model = AutoModelForCausalLM.from_pretrained(folder / "final" / "model")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert model.num_parameters() == base.num_parameters()
    assert (folder / "final" / "adapter").is_dir() == (method == "LoRA")
    again = write(tmp_path / "again", tiny_model, changes)
    assert worker.main([str(again)]) == SUCCESS
    assert jobs.results(again)["weights_sha256"] == jobs.results(folder)["weights_sha256"]


def test_training_ends_after_the_tokens_asked_for(tokenizer: Path, tmp_path: Path) -> None:
    # 3 steps of 4 sequences of 48 tokens are 576.
    changes = {**NEW, "training.maxSteps": specs.REMOVE, "training.maxTokens": 500}
    folder = write(tmp_path, tokenizer, changes)
    assert worker.main([str(folder)]) == SUCCESS
    assert jobs.results(folder)["total_steps"] == 3


@pytest.mark.parametrize(
    ("changes", "exit_class", "message"),
    [
        pytest.param(
            {"training.arguments": {"packing": True}},
            ExitClass.CONFIG,
            "training.arguments.packing: TrainingArguments has no such argument: see"
            " transformers' TrainingArguments",
            id="an argument of another stage",
        ),
        pytest.param(
            {"training.arguments": {"adam_beta": 0.9}},
            ExitClass.CONFIG,
            "training.arguments.adam_beta: TrainingArguments has no such argument",
            id="an unknown argument",
        ),
        pytest.param(
            {"evaluation": {"fraction": 1e-9}},
            ExitClass.DATA,
            "of 80 documents 0 have no text, which leaves 80 to train on and 0 held out",
            id="nothing held out",
        ),
    ],
)
def test_what_cannot_work_is_told(
    changes: Mapping[str, Any],
    exit_class: ExitClass,
    message: str,
    tokenizer: Path,
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, tokenizer, {**NEW, **changes})
    assert worker.main([str(folder)]) == EXIT_POLICIES[exit_class].code
    assert message in jobs.failure(folder).message


def trainer_of(folder: Path, tokenizer: Path, family: str, *, isolate: bool) -> Any:
    """Returns the trainer that a run of `family` would make, over four short documents."""
    from llmtrain_trainer.data import corpus
    from llmtrain_trainer.data.tokens import Prepared
    from llmtrain_trainer.stages import arguments, loading, pretrain
    from llmtrain_trainer.stages.devices import Device
    from llmtrain_trainer.stages.flow import Parts

    changes = {
        **NEW,
        "architecture": {"family": family, **SIZES},
        "evaluation": specs.REMOVE,
        "pretrain": {"isolateDocuments": isolate},
        "training.microBatchSize": 1,
    }
    jobs.write_job(folder, tokenizer, changes, data=[documents(4)])
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    loaded = loading.load_tokenizer(job)
    corpus.prepare(job, loaded, folder / "tokens")
    device = Device("cpu", "cpu", bf16=False)
    config = arguments.build(job.run.spec, device, "FP32", folder / "out")
    model = loading.new_model(job.run.spec, loaded, device, "FP32")
    return pretrain._build(Parts(job, config, model, loaded, Prepared(folder / "tokens"), None, []))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "not isolated"])
def test_documents_see_each_other_only_where_they_may(
    isolate: bool, family: str, tokenizer: Path, tmp_path: Path
) -> None:
    import torch

    from llmtrain_trainer.data.stream import Sequences, Stream, StreamWriter

    trainer = trainer_of(tmp_path, tokenizer, family, isolate=isolate)
    trainer.model.eval()
    chance = random.Random(1)
    first, other, second, third = (
        [chance.randrange(300) for _ in range(length)] for length in (11, 11, 20, 9)
    )

    def logits(*parts: list[int]) -> torch.Tensor:
        with StreamWriter(tmp_path, "probe", 300) as writer:
            for ids in parts:
                writer.add(ids)
        sequences = Sequences(Stream(tmp_path, "probe"), 48, isolate=isolate)
        batch = trainer.data_collator([sequences[0], sequences[0]])
        with torch.no_grad():
            _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
        result: torch.Tensor = outputs.logits[0]
        return result

    together = logits(first, second, third)
    changed = logits(other, second, third)[11:]
    difference = (together[11:] - changed).abs().max().item()
    assert difference == 0 if isolate else difference > 1e-4
    assert (together[:11] - logits(other, second, third)[:11]).abs().max() > 1e-4
    if isolate:
        torch.testing.assert_close(together[31:], logits(third), rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_keep_documents_apart_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    model = shutil.copytree(tiny_model, tmp_path / "model")
    sizes: Any = {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 1,
    }
    config = OPTConfig(vocab_size=512, num_attention_heads=2, **sizes)
    OPTForCausalLM(config).save_pretrained(model)
    full = {**CONTINUED, "tuning": {"method": "Full"}}
    folder = write(tmp_path / "work", model, full)
    assert worker.main([str(folder)]) == EXIT_POLICIES[ExitClass.CONFIG].code
    assert jobs.failure(folder).message == (
        "pretrain.isolateDocuments: a model of the kind opt lets documents that share a sequence"
        " see each other: set it to false"
    )
    shared = write(tmp_path / "shared", model, full | {"pretrain": {"isolateDocuments": False}})
    assert worker.main([str(shared)]) == SUCCESS


def test_the_loss_falls_on_every_token_but_the_first(tokenizer: Path, tmp_path: Path) -> None:
    import torch

    from llmtrain_trainer.data import corpus
    from llmtrain_trainer.data.stream import Sequences, Stream

    trainer = trainer_of(tmp_path, tokenizer, "llama", isolate=False)
    trainer.model.eval()
    stream = Stream(tmp_path / "tokens", corpus.TRAIN)
    ids = torch.from_numpy(stream.tokens.astype("int64"))
    sequences = Sequences(stream, 48, isolate=False)
    batch = trainer.data_collator([sequences[i] for i in range(len(sequences))])
    assert len(sequences) > 2
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch)
        logits = torch.cat([trainer.model(part[None]).logits[0] for part in torch.split(ids, 48)])
    expected = torch.nn.functional.cross_entropy(logits[:-1], ids[1:])
    torch.testing.assert_close(loss, expected)


def test_an_epoch_gives_each_sequence_once_the_short_one_too(
    tokenizer: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, tokenizer, "llama", isolate=True)
    from llmtrain_trainer.stages.samples import SampleRecorder

    trainer.recorder = SampleRecorder(trainer.data_collator)
    given = [
        row[label != -100].tolist()
        for batch in trainer.get_train_dataloader()
        for row, label in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    sequences = trainer.train_dataset
    expected = [sequences[i]["input_ids"].tolist() for i in range(len(sequences))]
    assert sorted(given) == sorted(expected)
    assert len({len(ids) for ids in given}) == 2


def test_flash_attention_gets_the_sequences_in_one_row() -> None:
    import numpy as np

    from llmtrain_trainer.stages.pretrain import Collator

    parts = [
        {"input_ids": [1, 2, 3], "targets": [2, 3, 4], "position_ids": [0, 1, 0]},
        {"input_ids": [4, 5], "targets": [5, -100], "position_ids": [0, 1]},
    ]
    arrays = [{name: np.array(ids) for name, ids in part.items()} for part in parts]
    flat = {name: rows.tolist() for name, rows in Collator(flat=True)(arrays).items()}
    assert flat == {
        "input_ids": [[1, 2, 3, 4, 5]],
        "labels": [[1, 2, 3, 4, 5]],
        "shift_labels": [[2, 3, 4, 5, -100]],
        "position_ids": [[0, 1, 0, 0, 1]],
    }
    padded = {name: rows.tolist() for name, rows in Collator()(arrays).items()}
    assert padded == {
        "input_ids": [[1, 2, 3], [4, 5, 0]],
        "labels": [[1, 2, 3], [4, 5, -100]],
        "shift_labels": [[2, 3, 4], [5, -100, -100]],
        "position_ids": [[0, 1, 0], [0, 1, 0]],
    }
