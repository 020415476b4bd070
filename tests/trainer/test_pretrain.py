"""Whole pretraining runs of tiny models, new and continued, through the worker's own entry."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jobs
import pytest
import specs
import tiny

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.stages.pretrain import Architecture
from llmtrain_trainer import worker
from llmtrain_trainer.workdir import Job, RankFailure

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

SUCCESS, PREEMPTED = 0, EXIT_POLICIES[ExitClass.PREEMPTED].code
FAMILIES: tuple[str, ...] = get_args(Architecture.model_fields["family"].annotation)
REFERENCE = Path(__file__).parent / "reference" / "pretrain_reference.py"
STEPS = 54
SIZES = {
    "hiddenSize": 32,
    "numHiddenLayers": 2,
    "numAttentionHeads": 2,
    "maxPositionEmbeddings": 64,
}
NEW = {
    "stage": "Pretrain",
    "model": specs.REMOVE,
    "tuning": specs.REMOVE,
    "architecture": {"family": "gpt2", **SIZES},  # It has dropout.
    "tokenizer": {"uri": "s3://models/tokenizer/"},
    "datasets": [{"uri": "s3://data/text.jsonl", "format": "Text"}],
    "evaluation": {"fraction": 0.2, "everySteps": 4},
    "training.maxLength": 48,
}
CONTINUED = {
    "stage": "Pretrain",
    "datasets": NEW["datasets"],
    "evaluation": NEW["evaluation"],
    "training.maxLength": 48,
}


def documents(count: int, seed: int = 3) -> list[dict[str, str]]:
    """Returns texts of one to forty words, each word often followed by the same next one."""
    chance = random.Random(seed)
    words = ["red", "blue", "green", "small", "large", "round", "quick", "slow"]
    rows = []
    for number in range(count):
        place = chance.randrange(len(words))
        text = [str(number)]
        for _ in range(chance.randint(1, 40)):
            place = (place + chance.choice([1, 1, 1, 3])) % len(words)
            text.append(words[place])
        rows.append({"text": " ".join(text)})
    return rows


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a tokenizer and nothing else, as the launcher downloads it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, folder)
    return folder


def write(folder: Path, model: Path, changes: Mapping[str, Any], **more: Any) -> Path:
    return jobs.write_job(folder, model, changes, data=[documents(80)], **more)


@pytest.fixture(scope="module")
def undisturbed(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run of 12 steps of a new model, over more than an epoch."""
    folder = write(tmp_path_factory.mktemp("undisturbed"), tokenizer, NEW)
    assert worker.main([str(folder)]) == SUCCESS
    return folder


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (folder / "final" / "results" / "all_results.json").read_text()
    )
    return content


def log(folder: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def failure(folder: Path) -> RankFailure:
    return RankFailure.model_validate_json((folder / "failure-rank-0.json").read_bytes())


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

    numbers = results(undisturbed)
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
    assert results(resumed)["weights_sha256"] == results(undisturbed)["weights_sha256"]
    middle = undisturbed / "out" / "checkpoint-6"  # In its second epoch.
    later = write(tmp_path / "later", tokenizer, NEW, resume_from=middle)
    assert worker.main([str(later)]) == SUCCESS
    assert results(later)["weights_sha256"] == results(undisturbed)["weights_sha256"]


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
    assert results(again)["weights_sha256"] == results(folder)["weights_sha256"]


def test_training_ends_after_the_tokens_asked_for(tokenizer: Path, tmp_path: Path) -> None:
    # 3 steps of 4 sequences of 48 tokens are 576.
    changes = {**NEW, "training.maxSteps": specs.REMOVE, "training.maxTokens": 500}
    folder = write(tmp_path, tokenizer, changes)
    assert worker.main([str(folder)]) == SUCCESS
    assert results(folder)["total_steps"] == 3


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
    assert message in failure(folder).message


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
    assert failure(folder).message == (
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


def test_the_reference_is_short_and_imports_nothing_of_ours() -> None:
    assert len(REFERENCE.read_text().splitlines()) <= 60
    assert "llmtrain_" not in REFERENCE.read_text()


def exact_changes(folder: Path, processes: int) -> dict[str, Any]:
    return {
        **NEW,
        "architecture": {"family": "gpt2", **SIZES, "tieWordEmbeddings": True},
        "tokenizer": {"uri": f"file://{folder}/tokenizer/"},
        "datasets": [
            {"uri": f"file://{folder}/text.jsonl", "format": "Text"},
            {"uri": f"file://{folder}/text.txt", "format": "Text"},
        ],
        "output.uri": f"file://{folder}/out/",
        "evaluation": {"fraction": 0.2, "everySteps": 18},
        "training": {
            "maxSteps": STEPS,
            "globalBatchSize": 8,
            "microBatchSize": 2,
            "maxLength": 48,
            "learningRate": 5.0e-3,
            "lrSchedulerType": "cosine",
            "warmupSteps": 5,
            "weightDecay": 0.01,
            "maxGradNorm": 0.5,
            "loggingSteps": 1,
            "seed": 7,
            "arguments": {"adam_beta2": 0.98},
        },
        "workers.processesPerNode": processes,
    }


@pytest.mark.parametrize(
    "processes",
    [pytest.param(1, id="in one process"), pytest.param(2, id="in two processes")],
)
def test_the_loss_curve_equals_plain_transformers_bit_for_bit(
    processes: int, tokenizer: Path, tmp_path: Path
) -> None:
    shutil.copytree(tokenizer, tmp_path / "tokenizer")
    jsonl, txt = tmp_path / "text.jsonl", tmp_path / "text.txt"
    jsonl.write_bytes(tiny.jsonl(documents(150)))
    txt.write_text("".join(f"{row['text']}\n" for row in documents(70, seed=4)))
    run_file = tmp_path / "run.json"
    spec = jobs.small_spec(exact_changes(tmp_path, processes))
    run_file.write_text(json.dumps({"name": "exact", "spec": spec}))
    ours, theirs = tmp_path / "out", tmp_path / "theirs"

    scratch = ("--scratch", str(tmp_path / "scratch"))
    done = jobs.run_processes(1, "-m", "llmtrain_trainer", str(run_file), *scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = (str(tmp_path / "tokenizer"), str(theirs), str(jsonl), str(txt))
    done = jobs.run_processes(processes, str(REFERENCE), *inputs)
    assert done.returncode == 0, done.stdout + done.stderr

    text = (ours / "results" / "trainer_log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    history = json.loads((theirs / "history.json").read_text())
    for name, reference_name, count in (
        ("loss", "loss", STEPS),
        ("grad_norm", "grad_norm", STEPS),
        ("lr", "learning_rate", STEPS),
        ("eval_loss", "eval_loss", 3),
    ):
        curve = [line[name] for line in lines if name in line]
        expected = [line[reference_name] for line in history if reference_name in line]
        assert len(curve) == count
        assert curve == expected, f"the curves of {name} differ"
    assert max(line["epoch"] for line in lines) > 2, "the short last sequence was trained"
    weights = "model/model.safetensors"
    assert sha256(ours / weights) == sha256(theirs / weights)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
