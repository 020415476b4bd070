from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from specs import changed, good

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer.__main__ import main
from llmtrain_trainer.runs import read_run
from llmtrain_trainer.stop import Stop


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "llmtrain.dev/v1alpha1",
        "kind": "LLMTrainRun",
        "metadata": {"name": "first", "namespace": "team", "labels": {"a": "b"}},
        "spec": good(),
        **changes,
    }


def test_a_run_file_and_a_manifest_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        json.dumps({"name": "first", "namespace": "team", "spec": good()})
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(manifest()))
    assert read_run(tmp_path / "run.json") == read_run(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", "not YAML", id="not YAML"),
        pytest.param("- a", "not an object", id="a list"),
        pytest.param(json.dumps(manifest(kind="Job")), "but a Job", id="another kind"),
        pytest.param(json.dumps(manifest(apiVersion="v1")), "not an LLMTrainRun", id="another API"),
        pytest.param(json.dumps(manifest(metadata={})), "name: ", id="no name"),
        pytest.param(
            json.dumps(manifest(spec={**good(), "stagge": "SFT"})), "spec.stagge: ", id="a typo"
        ),
        pytest.param(
            json.dumps(manifest(spec=changed(good(), "model", {"fromRun": {"name": "sft"}}))),
            r"spec\.model\.fromRun: what run sft wrote is known to the operator .* set model\.uri",
            id="a model of another run",
        ),
        pytest.param(
            json.dumps(
                manifest(spec={**good("Pretrain"), "tokenizer": {"fromRun": {"name": "t"}}})
            ),
            r"spec\.tokenizer\.fromRun: .* set tokenizer\.uri",
            id="a tokenizer of another run",
        ),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "run").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_run(tmp_path / "run")


def test_a_run_file_that_cannot_be_used_ends_with_a_message_for_the_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stop, "listen", lambda self: None)  # Signals stay pytest's.
    (tmp_path / "run").write_text("{}")
    log = tmp_path / "termination-log"
    code = main([str(tmp_path / "run"), "--termination-log", str(log)])
    assert code == EXIT_POLICIES[ExitClass.CONFIG].code
    assert json.loads(log.read_text())["exitClass"] == "InvalidConfig"
    assert "spec: Field required" in capsys.readouterr().err
