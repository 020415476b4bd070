"""The demo's own steps, without a cluster: the rows it makes and the way it shows a run."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import folders
import kubectl
import make_dataset
import pytest
import train
import upload
import yaml
from botocore.stub import Stubber

from llmtrain_trainer.data.rows import is_held_out

DEMO = Path(folders.__file__).parent


def _make_rows(cache: Path, hash_seed: str) -> dict[str, str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONHASHSEED": hash_seed}
    script = [sys.executable, str(DEMO / "make_dataset.py")]
    subprocess.run(script, env=environment, check=True, capture_output=True)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (cache / "llmtrain-demo" / "data").iterdir()
    }


def test_the_rows_are_the_same_each_time(tmp_path: Path) -> None:
    assert _make_rows(tmp_path / "one", "1") == _make_rows(tmp_path / "two", "2")


def test_no_held_out_row_is_trained_on() -> None:
    rows = make_dataset.make_rows()
    questions = [row["instruction"] for row in rows]
    assert questions[0] == make_dataset.question(make_dataset.ASKED)
    assert len(rows) >= make_dataset.TRAIN_ROWS + make_dataset.HELD_OUT_ROWS
    assert len(set(questions)) == len(questions)
    assert len({row["output"] for row in rows}) == len(rows)


def test_the_run_holds_out_the_share_that_its_manifest_asks_for() -> None:
    rows = make_dataset.make_rows()[make_dataset.HELD_OUT_ROWS :][: make_dataset.TRAIN_ROWS]
    held_out = sum(is_held_out(dict(row), 0.05) for row in rows)
    assert 0.02 < held_out / len(rows) < 0.1


@pytest.mark.parametrize(
    ("documentation", "answer"),
    [
        pytest.param(
            "Return the sum\nof both numbers.\n\nMore.",
            "Return the sum of both numbers.",
            id="one paragraph",
        ),
        pytest.param("gcd(a, b)\n\nGreatest.", "", id="a signature is no answer"),
        pytest.param("Short.", "", id="too short"),
        pytest.param("Return " + "very " * 40 + "much.", "", id="too long"),
        pytest.param("", "", id="none"),
    ],
)
def test_first_sentences(documentation: str, answer: str) -> None:
    assert make_dataset.first_sentences(documentation) == answer


def test_a_chat_has_two_turns_in_the_messages_format() -> None:
    rows = make_dataset.make_rows()
    chat = make_dataset.to_chat((rows[1], rows[2]))
    roles = [message["role"] for message in chat["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert json.loads(make_dataset.to_line(chat)) == chat


@pytest.mark.parametrize("prefix", ["", "acme-"], ids=["as it is", "other buckets"])
def test_the_manifest_names_what_the_demo_makes(
    monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("DEMO_BUCKET_PREFIX", prefix)
    places = runpy.run_path(str(DEMO / "folders.py"))
    text = (DEMO.parent / "sft-run.yaml").read_text(encoding="utf-8")
    manifest = yaml.safe_load(train.with_buckets(text, places["BUCKET_PREFIX"]))
    spec = manifest["spec"]
    assert manifest["metadata"] == {"name": kubectl.RUN, "namespace": kubectl.NAMESPACE}
    assert spec["model"]["uri"] == f"s3://{places['MODELS_BUCKET']}/{folders.MODEL.name}/"
    assert spec["datasets"][0]["uri"] == f"s3://{places['DATA_BUCKET']}/{folders.TRAIN_ROWS.name}"
    assert spec["output"]["uri"] == f"s3://{places['RUNS_BUCKET']}/{folders.OUTPUT}"


def _stubbed(monkeypatch: pytest.MonkeyPatch, region: str) -> tuple[Any, Stubber]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_REGION", region)
    client = folders.s3_client()
    stubber = Stubber(client)
    stubber.activate()
    return client, stubber


@pytest.mark.parametrize(
    ("region", "asked"),
    [
        pytest.param("us-east-1", {}, id="in the first region, which must not be named"),
        pytest.param(
            "eu-central-1",
            {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}},
            id="in another region",
        ),
    ],
)
def test_a_missing_bucket_is_made(
    monkeypatch: pytest.MonkeyPatch, region: str, asked: dict[str, Any]
) -> None:
    client, stubber = _stubbed(monkeypatch, region)
    stubber.add_client_error("head_bucket", "404", http_status_code=404)
    stubber.add_response("create_bucket", {}, {"Bucket": "acme-data", **asked})
    upload.make_bucket(client, "acme-data")
    stubber.assert_no_pending_responses()


def test_a_bucket_that_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    client, stubber = _stubbed(monkeypatch, "eu-central-1")
    stubber.add_response("head_bucket", {})
    upload.make_bucket(client, "acme-data")
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([("head_bucket", 403)], id="somebody else's"),
        pytest.param([("head_bucket", 404), ("create_bucket", 403)], id="may not be made"),
    ],
)
def test_a_bucket_that_cannot_be_ours_is_told_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[str, int]]
) -> None:
    client, stubber = _stubbed(monkeypatch, "us-east-1")
    for operation, code in answers:
        stubber.add_client_error(operation, str(code), http_status_code=code)
    with pytest.raises(SystemExit, match=r"s3://data/.*DEMO_BUCKET_PREFIX"):
        upload.make_bucket(client, "data")


@pytest.mark.parametrize("name", ["heldout.py", "folders.py"])
def test_the_measurement_imports_nothing_of_ours(name: str) -> None:
    tree = ast.parse((DEMO / name).read_text(encoding="utf-8"))
    names = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    assert names
    assert not [name for name in names if name.startswith("llmtrain")]


def test_columns_keep_their_place_when_a_cell_is_empty() -> None:
    head, line = train.aligned(
        "NAME   PHASE     STEP   LOSS   AGE", "sft    Running                 10s"
    )
    assert head.split() == ["NAME", "PHASE", "STEP", "LOSS", "AGE"]
    assert [line.index("Running"), line.index("10s")] == [head.index("PHASE"), head.index("AGE")]


def test_sections_of_a_description() -> None:
    text = "Name:  x\nStatus:\n  Conditions:\n    Type:  A\n  Phase:  B\nEvents:\n  Type  Reason\n"
    shown = train.sections(text, without={"Conditions"})
    assert shown == "Status:\n  Phase:  B\nEvents:\n  Type  Reason"


WAITING = {
    "type": "WorkersReady",
    "status": "False",
    "reason": "Unschedulable",
    "message": "no room",
}
NOT_FINISHED = {"type": "Finished", "status": "False"}
FINISHED = {"type": "Finished", "status": "True"}


@pytest.mark.parametrize(
    ("status", "remark"),
    [
        pytest.param({}, "", id="nothing is known yet"),
        pytest.param({"conditions": [WAITING, NOT_FINISHED]}, "Unschedulable: no room", id="waits"),
        pytest.param(
            {"conditions": [WAITING, FINISHED]}, "", id="a finished run waits for nothing"
        ),
        pytest.param(
            {"progress": {"activity": "Loading", "message": "the model"}},
            "Loading: the model",
            id="before the first step",
        ),
        pytest.param({"progress": {"step": 3, "activity": "Training"}}, "", id="training"),
    ],
)
def test_remark_beside_the_table(status: dict[str, Any], remark: str) -> None:
    assert train.remark_on(status) == remark
