"""Where a result comes from, over all stages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jobs
import pytest

from llmtrain_api.runfile import RunFile, spec_hash
from llmtrain_trainer.stages import ancestry
from llmtrain_trainer.workdir import InputFile, Job

DATA = [SimpleNamespace(uri="s3://data/a.jsonl", sha256="aa", train=7)]


def run(name: str = "small", changes: dict[str, Any] | None = None) -> RunFile:
    return RunFile.model_validate({"name": name, "spec": jobs.small_spec(changes)})


def job(model: Path | str) -> Job:
    return Job(run=run(), restart=0, node=0, model_path=str(model), dataset_files=[])


def test_a_chain_is_told_from_its_first_run_to_its_last(tmp_path: Path) -> None:
    first = ancestry.with_run([], run("first"), DATA, "f00")
    ancestry.write(first, tmp_path)
    second = ancestry.with_run(ancestry.of_source(job(tmp_path)), run("second"), DATA, "f11")
    assert [each.name for each in second.runs] == ["first", "second"]
    assert second.runs[0].spec_hash == spec_hash(run().spec)
    text = ancestry.describe(second, [])
    row = "| SFT | first | `s3://models/tiny/` | `s3://data/a.jsonl` (7 rows) | `f00` |"
    assert row in text
    assert text.index("| SFT | first |") < text.index("| SFT | second |")
    assert "says nothing" not in text


@pytest.mark.parametrize("model", ["", "folder"], ids=["nothing", "a model from elsewhere"])
def test_what_comes_from_elsewhere_has_no_past(model: str, tmp_path: Path) -> None:
    assert ancestry.of_source(job(tmp_path / model if model else "")) == []
    text = ancestry.describe(ancestry.with_run([], run(), DATA, "f00"), [])
    assert "`s3://models/tiny/` says nothing of how it was made itself." in text


def test_a_later_version_may_say_more(tmp_path: Path) -> None:
    content = json.loads(ancestry.with_run([], run(), DATA, "f00").model_dump_json(by_alias=True))
    content["runs"][0]["more"] = content["more"] = 1
    (tmp_path / ancestry.FILE).write_text(json.dumps(content))
    assert [each.name for each in ancestry.of_source(job(tmp_path))] == ["small"]


def test_the_weights_that_it_started_from_are_named_with_their_hash() -> None:
    files = [
        InputFile(uri=f"s3://models/tiny/{name}", path="", size=5, etag="", sha256="5a")
        for name in ("model.safetensors", "config.json")
    ]
    text = ancestry.describe(ancestry.with_run([], run(), DATA, "f00"), files)
    assert "| `s3://models/tiny/model.safetensors` | 5 | `5a` |" in text
    assert "config.json" not in text
