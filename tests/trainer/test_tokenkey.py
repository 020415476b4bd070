"""Prepared tokens have another name exactly where they would be other tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jobs
import pytest

from llmtrain_trainer.data import tokenkey
from llmtrain_trainer.inputs import Downloaded
from llmtrain_trainer.workdir import InputFile, Job

ROWS = [{"instruction": "Sort", "output": "red"}]
TEXT = {
    "stage": "Pretrain",
    "datasets": [{"uri": "s3://data/a.jsonl", "format": "Text"}],
}
PAIRS = {
    "stage": "DPO",
    "datasets": [{"uri": "s3://data/a.jsonl", "format": "Preference"}],
    "tuning.lora.dropout": 0,
}


def name(folder: Path, changes: dict[str, Any], *, tokenizer: str = "1", rows: Any = ROWS) -> str:
    jobs.write_job(folder, folder / "model", changes, data=[rows])
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    file = InputFile(uri="", path="/x/tokenizer.json", size=1, etag="", sha256=tokenizer)
    return tokenkey.of(job.model_copy(update={"tokenizer_files": (file,)}))


def dataset(**fields: Any) -> list[dict[str, Any]]:
    return [{"uri": "s3://data/train.jsonl", "format": "Alpaca", **fields}]


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        pytest.param(
            {}, {"datasets": dataset(uri="s3://copy/rows.jsonl")}, id="a copy of the data"
        ),
        pytest.param({}, {"training.learningRate": 1e-5, "training.seed": 7}, id="other training"),
        pytest.param({}, {"tuning": {"method": "Full"}}, id="other weights that are trained"),
        pytest.param({}, {"model": {"uri": "s3://models/other/"}}, id="a model of that tokenizer"),
        pytest.param({}, {"workers.nodes": 2}, id="more nodes"),
        pytest.param({}, {"sft": {"packing": True}}, id="packing, which is done later"),
        pytest.param({}, {"output.uri": "s3://runs/other/"}, id="another run"),
        pytest.param(
            {}, {"datasets": dataset(weight=2)}, id="a weight, by which rows are taken later"
        ),
        pytest.param(TEXT, {**TEXT, "training.maxLength": 64}, id="running text of other lengths"),
        pytest.param(
            TEXT, {**TEXT, "pretrain": {"isolateDocuments": False}}, id="documents kept apart"
        ),
        pytest.param(PAIRS, {**PAIRS, "dpo": {"beta": 0.5}}, id="another loss of pairs"),
    ],
)
def test_the_name_stays_where_the_tokens_do(
    base: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert name(tmp_path / "b", {**base, **changes}) == name(tmp_path / "a", base)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        pytest.param({}, {"training.maxLength": 64}, id="another length"),
        pytest.param({}, {"sft": {"loss": "AllTokens"}}, id="other trained tokens"),
        pytest.param({}, {"sft": {"chatTemplate": "chatml"}}, id="another template"),
        pytest.param({}, {"datasets": dataset(maxSamples=5)}, id="fewer rows"),
        pytest.param({}, {"datasets": dataset(columns={"output": "answer"})}, id="other columns"),
        pytest.param({}, {"datasets": dataset(format="PromptCompletion")}, id="another format"),
        pytest.param(
            {}, {"datasets": dataset(uri="s3://data/train.json")}, id="another kind of file"
        ),
        pytest.param({}, {"evaluation": {"fraction": 0.1}}, id="rows held out"),
        pytest.param(
            TEXT, {**TEXT, "pretrain": {"appendEosToken": False}}, id="no end of documents"
        ),
    ],
)
def test_the_name_is_another_where_the_tokens_are(
    base: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert name(tmp_path / "b", {**base, **changes}) != name(tmp_path / "a", base)


def test_other_rows_and_another_tokenizer_count(tmp_path: Path) -> None:
    names = {
        name(tmp_path / "a", {}),
        name(tmp_path / "b", {}, tokenizer="2"),
        name(tmp_path / "c", {}, rows=ROWS * 2),
    }
    assert len(names) == 3


def test_another_version_of_the_code_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = name(tmp_path / "a", {})
    tokenkey._code.cache_clear()
    monkeypatch.setattr(tokenkey, "version", lambda library: "0.0.1")
    after = name(tmp_path / "b", {})
    tokenkey._code.cache_clear()
    assert after != before


def test_what_tokens_do_not_follow_from_is_no_file_of_a_tokenizer() -> None:
    names = (
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"),
        *("model.safetensors", "model.safetensors.index.json", "README.md", "manifest.json"),
        *("llmtrain-lineage.json", "generation_config.json"),
    )
    files = [InputFile(uri="", path=f"/model/{name}", size=1, etag="", sha256="") for name in names]
    found = Downloaded(Path("/model"), None, files, []).tokenizer_files
    assert [Path(file.path).name for file in found] == list(names[:4])
