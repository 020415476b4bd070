"""The stage Tokenizer, through the worker's entry and through the whole path of the launcher."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer import workdir, worker
from llmtrain_trainer.stages.telling import log_line
from llmtrain_trainer.workdir import Job, RankFailure

pytestmark = pytest.mark.torch

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
ROWS = [{"text": part} for page in PAGES for part in page.read_text("utf-8").split("\n\n")]


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "stage": "Tokenizer",
        "datasets": [{"uri": "s3://data/pages.jsonl", "format": "Text"}],
        "evaluation": {"fraction": 0.1},
        "tokenizerTraining": {"vocabSize": 1000},
        "output": {"uri": "s3://runs/tokenizer/"},
        **changes,
    }


def write_job(folder: Path, rows: list[dict[str, Any]] | None = None, /, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS))
    job = {
        "run": {"name": "words", "attempt": 1, "spec": spec(**changes)},
        "restart": 0,
        "node": 0,
        "datasetFiles": [jobs.input_file(path, "s3://data/pages.jsonl").to_dict()],
    }
    parsed = Job.model_validate(job)
    (folder / workdir.JOB).write_text(parsed.model_dump_json(by_alias=True))
    return folder


def results(folder: Path) -> dict[str, Any]:
    text = (folder / "final" / "results" / "all_results.json").read_text()
    content: dict[str, Any] = json.loads(text)
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run with BPE and ChatML."""
    folder = write_job(tmp_path_factory.mktemp("finished"))
    assert worker.main([str(folder)]) == 0
    return folder


def test_all_that_a_tokenizer_needs_is_in_its_folder(finished: Path) -> None:
    model = finished / "final" / "model"
    names = {path.name for path in model.iterdir()}
    assert names == {
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"),
        "llmtrain-lineage.json",
    }
    assert (finished / "final" / ".done").exists()
    config = json.loads((model / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["pad_token"]) == ("<|endoftext|>", "<|pad|>")


def test_every_text_comes_back_from_bytes(finished: Path) -> None:
    numbers = results(finished)
    assert numbers["vocab_size"] == 1000
    assert numbers["documents"] + numbers["measured_documents"] == len(ROWS)
    assert numbers["measured_on"] == "documents held out"
    assert numbers["exact_round_trip_share"] == 1.0
    assert numbers["difficult_exact_round_trips"] == numbers["difficult_texts"] == 16
    assert numbers["unknown_rate"] == 0
    assert numbers["bytes_per_token"] == numbers["measured_bytes"] / numbers["measured_tokens"]
    assert 2 < numbers["bytes_per_token"] < 5
    content = (finished / "final" / "model" / "tokenizer.json").read_bytes()
    assert numbers["tokenizer_sha256"] == hashlib.sha256(content).hexdigest()


def test_the_log_counts_documents_to_the_last_one(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "trainer_log.jsonl").read_text().splitlines()]
    last = lines[-1]
    assert last["current_steps"] == last["total_steps"] == results(finished)["documents"]
    assert last["percentage"] == 100.0
    assert last["remaining_time"] == "0:00:00"


def test_the_card_says_what_it_was_made_of(finished: Path) -> None:
    card = (finished / "final" / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "s3://data/pages.jsonl" in card
    assert "vocabSize: 1000" in card
    assert results(finished)["tokenizer_sha256"] in card


def test_the_chat_template_marks_answers_with_their_end(finished: Path) -> None:
    from transformers import AutoTokenizer
    from trl.chat_template_utils import (
        has_generation_markers,
        is_chat_template_prefix_preserving,
        is_chat_template_stop_token_trained,
    )

    tokenizer: Any = AutoTokenizer.from_pretrained(finished / "final" / "model")
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "👩‍👩‍👧"},
    ]
    text = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n"
        "<|im_start|>assistant\n👩‍👩‍👧<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(chat, tokenize=False) == text
    asked = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    assert asked == text.partition("Ho")[0]
    encoded = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    trained = [token for token, mask in pairs if mask]
    assert tokenizer.decode(trained) == "Ho<|im_end|>👩‍👩‍👧<|im_end|>"
    assert has_generation_markers(tokenizer.chat_template)
    assert is_chat_template_prefix_preserving(tokenizer)
    assert is_chat_template_stop_token_trained(tokenizer)


@pytest.mark.parametrize(
    ("algorithm", "exact"), [("Unigram", True), ("WordPiece", False)], ids=["Unigram", "WordPiece"]
)
def test_what_other_algorithms_lose_is_told(algorithm: str, exact: bool, tmp_path: Path) -> None:
    rows = [*ROWS, *({"text": f"☃ and {chr(0x4E00 + number)}"} for number in range(100))]
    changes = {"algorithm": algorithm, "vocabSize": 2000}
    folder = write_job(tmp_path, rows, tokenizerTraining=changes)
    assert worker.main([str(folder)]) == 0
    numbers = results(folder)
    assert 0 < numbers["unknown_rate"] < 0.05
    assert numbers["exact_round_trips"] < numbers["measured_documents"]
    assert (numbers["exact_round_trip_share"] > 0.6) is exact
    assert numbers["difficult_exact_round_trips"] < numbers["difficult_texts"]


@pytest.mark.parametrize("algorithm", ["BPE", "Unigram", "WordPiece"])
def test_two_runs_in_processes_of_their_own_make_the_same_file(
    algorithm: str, tmp_path: Path
) -> None:
    hashes = set()
    for name in ("one", "two"):
        settings = {"algorithm": algorithm, "vocabSize": 1000}
        folder = write_job(tmp_path / name, tokenizerTraining=settings)
        command = [sys.executable, "-m", "llmtrain_trainer.worker", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        assert results(folder)["vocab_size"] == 1000
        model = folder / "final" / "model"
        files = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
        hashes.add(
            "".join(hashlib.sha256((model / file).read_bytes()).hexdigest() for file in files)
        )
    assert len(hashes) == 1


def test_without_evaluation_what_was_read_is_measured_on(tmp_path: Path) -> None:
    folder = write_job(tmp_path, evaluation=None)
    assert worker.main([str(folder)]) == 0
    numbers = results(folder)
    assert numbers["measured_on"] == "documents learned from"
    assert numbers["documents"] == len(ROWS)


@pytest.mark.parametrize(
    ("rows", "changes", "exit_class", "message"),
    [
        pytest.param(
            [{"text": ""}, {"text": ""}],
            {"evaluation": None},
            ExitClass.DATA,
            "s3://data/pages.jsonl: the documents to learn from hold no text: upload text",
            id="documents without text",
        ),
        pytest.param(
            [{"text": "".join(chr(0xAC00 + number) for number in range(500))}],
            {"evaluation": None, "tokenizerTraining": {"algorithm": "Unigram", "vocabSize": 300}},
            ExitClass.CONFIG,
            "tokenizerTraining.vocabSize: 300 tokens are too few for 500 different characters",
            id="a vocabulary below the characters",
        ),
        pytest.param(
            [{"text": "a"}, {"words": "b"}],
            {"evaluation": None},
            ExitClass.DATA,
            "s3://data/pages.jsonl, line 2: has no `text` (it has `words`)",
            id="a row without text",
        ),
    ],
)
def test_what_cannot_work_is_said(
    rows: list[dict[str, Any]],
    changes: dict[str, Any],
    exit_class: ExitClass,
    message: str,
    tmp_path: Path,
) -> None:
    folder = write_job(tmp_path, rows, **changes)
    assert worker.main([str(folder)]) == EXIT_POLICIES[exit_class].code
    failure = RankFailure.model_validate_json((folder / "failure-rank-0.json").read_bytes())
    assert failure.message.startswith(message)


def test_a_line_of_the_log_says_how_long_it_will_take() -> None:
    assert log_line(25, 100, 10.0) == {
        "current_steps": 25,
        "total_steps": 100,
        "percentage": 25.0,
        "elapsed_time": "0:00:10",
        "remaining_time": "0:00:30",
        "seconds_per_step": 0.4,
    }


def test_the_whole_path_from_a_run_file_to_storage(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    uris = {"datasets": f"file://{data}/pages.jsonl", "output": f"file://{tmp_path}/out"}
    content = spec(
        datasets=[{"uri": uris["datasets"], "format": "Text"}], output={"uri": uris["output"]}
    )
    run_file = tmp_path / "run.json"
    run_file.write_text(json.dumps({"name": "words", "spec": content}))
    verdict = tmp_path / "termination.json"
    command = [
        *(sys.executable, "-m", "llmtrain_trainer", str(run_file)),
        *("--scratch", str(tmp_path / "scratch"), "--termination-log", str(verdict)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    manifest = json.loads((out / "model" / "manifest.json").read_text())
    assert {file["path"] for file in manifest["files"]} >= {
        *("model/tokenizer.json", "model/tokenizer_config.json", "model/chat_template.jinja"),
        *("model/README.md", "results/all_results.json", "results/trainer_log.jsonl"),
        "provenance.json",
    }
    numbers = json.loads((out / "results" / "all_results.json").read_text())
    content_hash = hashlib.sha256((out / "model" / "tokenizer.json").read_bytes()).hexdigest()
    assert numbers["tokenizer_sha256"] == content_hash
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["resolved"]["device"] == "cpu"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "already trained" in verdict.read_text()
