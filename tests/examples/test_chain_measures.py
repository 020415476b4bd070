"""What `make demo-chain` measures and shows, without a cluster: scores, claims, table, plot."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bigram
import folders
import heldout
import make_dataset
import make_questions
import measure
import places
import pytest
import report
import run_stages
import scores
import transfer


def test_a_bigram_loss_is_what_the_counts_say() -> None:
    model = bigram.Bigram([[0, 1, 0, 1, 0, 2], [0]], vocabulary=3)
    # After 0 came 1 twice and 2 once; after 2 came nothing.
    expected = -(math.log(2.5 / 4.5) + math.log(0.5 / 1.5)) / 2
    assert model.loss([[0, 1], [2, 2]], k=0.5) == pytest.approx(expected)


def test_chances_of_all_tokens_add_up_to_one() -> None:
    model = bigram.Bigram([[0, 1, 2, 2, 1, 0, 0]], vocabulary=4)
    for context in range(4):
        chances = [math.exp(-model.loss([[context, token]], k=0.1)) for token in range(4)]
        assert sum(chances) == pytest.approx(1)


@pytest.mark.parametrize(
    ("windows", "k"),
    [
        pytest.param([[0, 1, 2, 3] * 20] * 30, 1e-3, id="what never varies needs no smoothing"),
        pytest.param(
            [[a, b] for a in range(30) for b in range(30)], 1, id="pairs seen once need it"
        ),
    ],
)
def test_k_is_chosen_on_the_training_text(windows: list[list[int]], k: float) -> None:
    assert bigram.choose_k(windows, vocabulary=40) == pytest.approx(k)


# ---- scores -------------------------------------------------------------------------------------


def _letters(text: str, **_: Any) -> dict[str, list[int]]:
    return {"input_ids": [ord(letter) for letter in text]}


def test_each_token_but_the_first_is_predicted_in_one_window() -> None:
    class Tokenizer:
        eos_token_id = 0
        __call__ = staticmethod(_letters)

    windows = scores.windows_of(Tokenizer(), ["abcdefg", "", "abc"], length=4)
    texts = ["".join(chr(token) for token in window) for window in windows]
    assert texts == ["abcd", "defg", "g\0", "abc\0"]


@pytest.mark.parametrize(
    ("successes", "trials"),
    [
        pytest.param(5, 10, id="half of few"),
        pytest.param(180, 300, id="a majority of many"),
        pytest.param(300, 300, id="all"),
    ],
)
def test_wilson_lower_is_the_share_from_which_the_one_found_is_far(
    successes: int, trials: int
) -> None:
    lower = scores.wilson_lower(successes, trials)
    error = math.sqrt(lower * (1 - lower) / trials)
    assert successes / trials - lower == pytest.approx(1.96 * error)
    assert lower > 0


def test_an_answer_is_preferred_by_what_training_added() -> None:
    assert scores.count_preferred([2.0, -1.0, 0.0], [3.0, -2.0, 0.0]) == 1


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    folder = tmp_path_factory.mktemp("tiny")
    tiny.build_model(folder)
    return folder


@pytest.mark.torch
def test_losses_are_those_of_one_text_at_a_time(tiny_model: Path) -> None:
    import torch

    model, tokenizer = scores.load(tiny_model)
    texts = ["Sort these words", "red " * 30, "x"]
    windows = scores.windows_of(tokenizer, texts, length=16)
    total, count = 0.0, 0
    with torch.inference_mode():
        for window in windows:
            chances = model(torch.tensor([window])).logits[0, :-1].log_softmax(-1)
            for place, token in enumerate(window[1:]):
                total -= chances[place, token].item()
                count += 1
    assert len(windows) > len(texts)
    assert scores.text_loss(model, windows) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.torch
def test_log_probabilities_are_those_of_the_answers(tiny_model: Path) -> None:
    model, tokenizer = scores.load(tiny_model)
    rows = [{"instruction": "a b", "output": "red"}, {"instruction": "a", "output": "blue " * 9}]
    tokens = [len(heldout.tokens_of(tokenizer, row)[1]) for row in rows]
    found = scores.log_probabilities(model, tokenizer, rows)
    for row, count, value in zip(rows, tokens, found, strict=True):
        mean = heldout.mean_loss(model, tokenizer, [row])
        assert value == pytest.approx(-mean * count, rel=1e-5)
    pair = make_questions.to_pair("a b", "red", "blue")
    margin = scores.margins(model, tokenizer, [pair])[0]
    wrong = scores.log_probabilities(model, tokenizer, [{"instruction": "a b", "output": "blue"}])
    assert margin == pytest.approx(found[0] - wrong[0], rel=1e-5)


# ---- the report ---------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "bytes_per_token": 3.9,
    "round_trip": True,
    "bigram_loss": 5.0,
    "pretrain_loss": 4.9,
    "sft_base_loss": 4.0,
    "sft_loss": 3.6,
    "dpo_first_loss": math.log(2) + 9e-4,
    "dpo_pairs": 300,
    "dpo_accuracy": 0.6,
    "dpo_accuracy_lower": 0.54,
}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        pytest.param({}, [], id="all hold"),
        pytest.param({"round_trip": False}, ["Tokenizer"], id="text comes back changed"),
        pytest.param({"pretrain_loss": 5.0}, ["Pretrain"], id="no better than the bigram model"),
        pytest.param({"sft_loss": 3.61}, ["SFT"], id="SFT by less than a tenth"),
        pytest.param({"dpo_first_loss": 0.6943}, ["DPO"], id="the reference is another model"),
        pytest.param({"dpo_accuracy_lower": 0.5}, ["DPO"], id="no better than chance"),
    ],
)
def test_claims(change: dict[str, Any], failed: list[str]) -> None:
    rows = report.claims({**GOOD, **change})
    assert [row.stage for row in rows if not row.holds] == failed
    assert report.table(rows).count("| NO ") == len(failed)


def test_the_table_is_aligned() -> None:
    lines = report.table(report.claims(GOOD)).splitlines()
    assert len(lines) == 2 + len(report.claims(GOOD))
    assert len({len(line) for line in lines}) == 1
    assert "3.600 (-10%)" in lines[4]


def _log(last: float) -> list[dict[str, float]]:
    return [{"current_steps": 1, "loss": 6.0}, {"current_steps": 2, "loss": last}]


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    logs = {stage: _log(1.0) for stage in places.STAGES[1:]}
    logs["sft"].append({"current_steps": 2, "eval_loss": 1.1})
    report.plot(logs, GOOD, tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_loss_is_that_of_step_1() -> None:
    assert measure.first_loss([{"current_steps": 1, "eval_loss": 9.0}, *_log(1.0)]) == 6.0
    with pytest.raises(SystemExit, match="loggingSteps: 1"):
        measure.first_loss(_log(1.0)[1:])


@pytest.mark.torch
@pytest.mark.parametrize("holds", [False, True], ids=["fails", "succeeds"])
def test_measuring_the_whole_chain(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    for name in ("CORPUS", "CORPUS_HELD_OUT", "QUESTIONS_HELD_OUT", "PAIRS_HELD_OUT"):
        monkeypatch.setattr(places, name, tmp_path / f"{name}.jsonl")
    for name in ("NUMBERS", "TABLE", "PLOT"):
        monkeypatch.setattr(places, name, tmp_path / name.lower())
    monkeypatch.setattr(places, "PLOT", tmp_path / "plot.png")
    monkeypatch.setattr(places, "model_of", lambda stage: tiny_model)
    monkeypatch.setattr(places, "log_of", lambda stage: tmp_path / "log.jsonl")
    questions = [{"instruction": f"what is {name}?", "output": name * 3} for name in "abcdef"]
    texts = [{"text": "red blue green " * count} for count in range(1, 30)]
    make_dataset.write_rows(places.CORPUS, texts[5:])
    make_dataset.write_rows(places.CORPUS_HELD_OUT, texts[:5])
    make_dataset.write_rows(places.QUESTIONS_HELD_OUT, list(questions))
    make_dataset.write_rows(places.PAIRS_HELD_OUT, make_questions.make_pairs(questions, 1))
    make_dataset.write_rows(tmp_path / "log.jsonl", list(_log(1.0)))
    if holds:
        monkeypatch.setattr(
            report, "claims", lambda numbers: [report.Claim("a", "b", "c", "d", holds=True)]
        )
    assert measure.main() == (0 if holds else 1)
    numbers = json.loads(places.NUMBERS.read_text("utf-8"))
    # The same model stands for all stages: nothing is better than anything.
    assert numbers["round_trip"]
    assert numbers["sft_loss"] == numbers["sft_base_loss"]
    assert numbers["dpo_accuracy"] == 0
    assert places.TABLE.is_file()
    assert places.PLOT.is_file()


# ---- on the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["bigram.py", "measure.py", "places.py", "report.py", "scores.py", "transfer.py"]
)
def test_the_measurements_import_nothing_of_ours(name: str) -> None:
    tree = ast.parse(Path(places.__file__).with_name(name).read_text("utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    assert names
    assert not [name for name in names if name.startswith("llmtrain")]


def test_results_are_brought_to_where_they_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "RESULTS", tmp_path / "results")
    there = [f"chain-dpo/{name}" for name in ("model/config.json", "checkpoints/1/x", "run.json")]
    there.append("chain-dpo/results/trainer_log.jsonl")
    got: list[str] = []

    def download(bucket: str, key: str, path: str) -> None:
        got.append(key)
        Path(path).touch()

    monkeypatch.setattr(
        folders,
        "keys_under",
        lambda client, bucket, prefix: [key for key in there if key.startswith(prefix)],
    )
    transfer.download_results(SimpleNamespace(download_file=download))
    assert sorted(got) == [there[0], there[3]]
    assert (places.model_of("dpo") / "config.json").is_file()
    assert places.log_of("dpo").is_file()


def test_a_direction_must_be_named() -> None:
    with pytest.raises(SystemExit, match="`up` or `down`"):
        transfer.main([])


@pytest.mark.parametrize(
    ("status", "word"),
    [
        pytest.param("True", "", id="succeeded"),
        pytest.param("False", "chain-sft did not succeed: no room", id="failed"),
    ],
)
def test_the_chain_ends_with_the_first_run_that_fails(
    monkeypatch: pytest.MonkeyPatch, status: str, word: str
) -> None:
    found = {"type": "Succeeded", "status": status, "message": "no room"}
    monkeypatch.setattr(run_stages, "status", lambda name: {"conditions": [found]})
    if not word:
        run_stages.check_success("chain-sft")
        return
    with pytest.raises(SystemExit, match=word):
        run_stages.check_success("chain-sft")
