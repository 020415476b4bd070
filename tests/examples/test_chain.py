"""The steps of `make demo-chain`, without a cluster: data, manifests, measurements, table."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import folders
import kubectl
import make_corpus
import make_dataset
import make_questions
import places
import pytest
import run_stages
import yaml

from llmtrain_api.run import RunSpec

CHAIN = Path(places.__file__).parent


def _manifest(stage: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((CHAIN / f"{stage}.yaml").read_text("utf-8"))
    return manifest


# ---- the manifests ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", places.STAGES)
def test_a_manifest_is_the_run_that_the_demo_looks_for(stage: str) -> None:
    manifest = _manifest(stage)
    spec = RunSpec.model_validate(manifest["spec"])
    assert manifest["metadata"] == {
        "name": places.run_name(stage),
        "namespace": kubectl.NAMESPACE,
    }
    assert spec.stage.lower() == stage
    assert spec.output.uri == f"s3://{folders.RUNS_BUCKET}/{places.output_of(stage)}"
    assert spec.workers.nodes == (1 if stage == "tokenizer" else 2)


def test_each_run_starts_from_what_the_one_before_it_made() -> None:
    specs = [RunSpec.model_validate(_manifest(stage)["spec"]) for stage in places.STAGES]
    for spec, before in zip(specs[1:], specs, strict=False):
        assert spec.source_uri == f"{before.output.uri}model/"


def test_the_manifests_name_the_data_that_is_uploaded() -> None:
    named = {
        dataset["uri"]
        for stage in places.STAGES
        for dataset in _manifest(stage)["spec"]["datasets"]
    }
    uploaded = {
        f"s3://{folders.DATA_BUCKET}/{places.DATA_PREFIX}{path.name}" for path in places.TRAINED_ON
    }
    assert named == uploaded


def test_the_first_loss_of_dpo_is_logged_alone() -> None:
    training = RunSpec.model_validate(_manifest("dpo")["spec"]).require_training()
    assert training.logging_steps == 1


def test_the_wait_is_the_one_that_the_manifests_show() -> None:
    for stage in places.STAGES:
        waits = " ".join(run_stages.wait_command(places.run_name(stage)))
        shown = (CHAIN / f"{stage}.yaml").read_text("utf-8")
        assert f"--for=condition=Finished llmtrainrun/{places.run_name(stage)}" in shown
        assert f"--for=condition=Finished llmtrainrun/{places.run_name(stage)}" in waits


# ---- questions and pairs ------------------------------------------------------------------------


def test_no_function_is_both_trained_on_and_held_out() -> None:
    train, held_out = make_questions.split()
    assert len(held_out) == make_questions.HELD_OUT_ROWS
    for column in ("instruction", "output"):
        assert not {row[column] for row in train} & {row[column] for row in held_out}


@pytest.mark.parametrize("rejections", [1, 3])
def test_each_answer_is_chosen_as_often_as_rejected(rejections: int) -> None:
    rows = [{"instruction": f"what is {name}?", "output": name} for name in "abcdefg"]
    pairs = make_questions.make_pairs(rows, rejections)
    found = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs]
    assert len(set(found)) == len(rows) * rejections
    assert sorted(good for good, _ in found) == sorted(bad for _, bad in found)
    assert not [good for good, bad in found if good == bad]
    assert all(
        good in pair["prompt"][0]["content"] for (good, _), pair in zip(found, pairs, strict=True)
    )


def test_too_few_rows_for_that_many_wrong_answers() -> None:
    with pytest.raises(ValueError, match="2 rows have no 2 wrong answers each"):
        make_questions.make_pairs([{"instruction": "a", "output": "b"}] * 2, 2)


# ---- the corpus ---------------------------------------------------------------------------------

SOURCE = '''
"""A module that has a docstring of more than forty characters."""

def first(a, *, b=1):
    """Return the first of all the things that were given to it.

    More about it.
    """

class Thing:
    """A thing is what has a docstring that is long enough to be kept."""

    def method(self):
        """Do with the thing whatever a thing like that is meant for."""

    def short(self):
        """Too short."""
'''


def test_a_module_becomes_documents() -> None:
    documents = list(make_corpus.entries("box", SOURCE))
    assert documents == [
        ["box\n\nA module that has a docstring of more than forty characters."],
        [
            "box.first(a, *, b=1)\n\nReturn the first of all the things that were given to it."
            "\n\nMore about it."
        ],
        [
            "box.Thing\n\nA thing is what has a docstring that is long enough to be kept.",
            "box.Thing.method(self)\n\nDo with the thing whatever a thing like that is meant for.",
        ],
    ]


def test_held_out_answers_and_repeated_docstrings_are_left_out() -> None:
    documents = [
        ["a.f()\n\nSay it\nonce."],
        ["a.g()\n\nSay it once."],
        ["a.C\n\nC.", "a.C.h()\n\nHold  me."],
    ]
    assert list(make_corpus.without(documents, ["Hold me."])) == [
        "a.f()\n\nSay it\nonce.",
        "a.C\n\nC.",
    ]


def test_files_of_the_library_in_their_order(tmp_path: Path) -> None:
    for name in ("b.py", "a/__init__.py", "a/c.py", "test/d.py", "a/tests/e.py", "a/data.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in make_corpus.library_files(tmp_path)] == ["a", "a.c", "b"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with some modules of the real library."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("bisect", "glob", "heapq", "textwrap"):
        source = inspect.getsource(importlib.import_module(name))
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


def test_the_corpus_is_the_same_each_time_and_holds_out_a_share(library: Path) -> None:
    rows = make_corpus.make_corpus(library, [])
    assert rows == make_corpus.make_corpus(library, [])
    held_out = [row for row in rows if make_corpus.is_held_out(row)]
    assert len({row["text"] for row in rows}) == len(rows) > 80
    assert 0 < len(held_out) < len(rows) / 5


def test_no_held_out_answer_is_in_the_corpus(library: Path) -> None:
    _, held_out = make_questions.split()
    answers = [row["output"] for row in held_out]
    asked = next(row for row in held_out if make_dataset.ASKED in row["instruction"])
    everything = " ".join(
        " ".join(row["text"].split()) for row in make_corpus.make_corpus(library, [])
    )
    assert asked["output"] in everything, "else this test shows nothing"
    for row in make_corpus.make_corpus(library, answers):
        words = " ".join(row["text"].split())
        assert not [answer for answer in answers if answer in words]
