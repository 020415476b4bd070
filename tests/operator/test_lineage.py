"""What `fromRun` names, one situation at a time."""

from __future__ import annotations

from typing import Any

import pytest
from chains import chained, whole
from views import run

from llmtrain_api.run import RunSpec
from llmtrain_operator.lineage import find_lineage
from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import Lineage, RunKey, RunView

KEY = RunKey("default", "one")
CHECKPOINTS = [{"name": "400-a2r0", "step": 400}, {"name": "300-a1r1", "step": 300}]


def ended(*, succeeded: bool = True, reason: str = "Succeeded", **more: Any) -> dict[str, Any]:
    """Returns the status of a run that has finished."""
    outcome = "True" if succeeded else "False"
    return {
        "phase": "Succeeded" if succeeded else "Failed",
        "attempt": 1,
        "conditions": [
            {"type": "Succeeded", "status": outcome, "reason": reason},
            {"type": "Finished", "status": "True", "reason": reason},
        ],
        "resolved": {"specHash": "5f"},
        **more,
    }


def named(name: str, status: dict[str, Any], spec: dict[str, Any] | None = None) -> RunView:
    """Returns another run than the one in question."""
    body = spec or whole(output={"uri": f"s3://runs/{name}/"})
    return run(key=RunKey("default", name), uid=f"{name}-uid", spec=body, status=status)


def lineage_of(spec: dict[str, Any], *others: RunView) -> Lineage:
    """Returns what a run of this spec finds."""
    views = [run(spec=spec), *others]
    return find_lineage(KEY, RunSpec.model_validate(spec), {view.key: view for view in views})


def test_a_run_that_names_no_other_has_no_parents() -> None:
    assert lineage_of(whole()) == Lineage()


@pytest.mark.parametrize(
    ("source", "status", "uri"),
    [
        pytest.param({}, ended(), "s3://runs/sft/model/", id="the last report is lost"),
        pytest.param(
            {},
            ended(artifacts={"model": "s3://runs/sft/elsewhere/"}),
            "s3://runs/sft/elsewhere/",
            id="the place that was reported",
        ),
        pytest.param(
            {"checkpoint": 300},
            ended(checkpoints=CHECKPOINTS),
            "s3://runs/sft/checkpoints/300-a1r1/",
            id="a checkpoint",
        ),
        pytest.param(
            {"checkpoint": 400},
            ended(latestCheckpoint="400-a2r0"),
            "s3://runs/sft/checkpoints/400-a2r0/",
            id="a checkpoint that only its last words name",
        ),
    ],
)
def test_a_run_that_succeeded_is_a_parent(
    source: dict[str, Any], status: dict[str, Any], uri: str
) -> None:
    found = lineage_of(chained("sft", **source), named("sft", status))
    assert found.obstacle is None
    (parent,) = found.parents
    assert (parent.field, parent.name, parent.uid) == ("model", "sft", "sft-uid")
    assert (parent.uri, parent.spec_hash) == (uri, "5f")


def test_a_merged_adapter_is_a_whole_model() -> None:
    output = {"uri": "s3://runs/sft", "export": {"mergeAdapter": True}}
    merged = whole(tuning={"method": "LoRA"}, output=output)
    (parent,) = lineage_of(chained("sft"), named("sft", ended(), merged)).parents
    assert parent.uri == "s3://runs/sft/model/"


WITH_ADAPTER = whole(tuning={"method": "LoRA"}, output={"uri": "s3://runs/sft/"})
TOKENIZER = {"stage": "Tokenizer", "output": {"uri": "s3://runs/sft/"}}
WAITS, MISSING = Reason.WAITING_FOR_RUN, Reason.RUN_NOT_FOUND
GONE = named("sft", ended())


@pytest.mark.parametrize(
    ("source", "other", "reason", "told"),
    [
        pytest.param(
            {}, None, MISSING, "run sft does not exist (not applied yet, or deleted)", id="no run"
        ),
        pytest.param({}, named("sft", {}), WAITS, "which is Pending.", id="a run without status"),
        pytest.param(
            {}, named("sft", {"phase": "Running"}), WAITS, "which is Running.", id="one that trains"
        ),
        pytest.param(
            {},
            named(
                "sft",
                {
                    "phase": "Pending",
                    "conditions": [
                        {"type": "Accepted", "status": "False", "reason": "PredecessorFailed"}
                    ],
                },
            ),
            WAITS,
            "which is Pending and cannot start (PredecessorFailed).",
            id="one that itself waits in vain",
        ),
        pytest.param(
            {},
            named("sft", ended(succeeded=False, reason="Diverged")),
            Reason.PREDECESSOR_FAILED,
            "run sft has failed (Diverged): mend what it says and raise spec.retry there",
            id="one that failed",
        ),
        pytest.param(
            {},
            named("sft", {"phase": "Running"}, WITH_ADAPTER),
            Reason.INVALID_SPEC,
            "apply it with output.export.mergeAdapter: true",
            id="one that will write an adapter only",
        ),
        pytest.param(
            {"checkpoint": 300},
            named("sft", {"phase": "Running"}, WITH_ADAPTER),
            Reason.INVALID_SPEC,
            "its checkpoints hold no whole model: name Final",
            id="a checkpoint of adapters",
        ),
        pytest.param(
            {},
            named("sft", {}, TOKENIZER),
            Reason.INVALID_SPEC,
            "is of stage Tokenizer and makes no model: name a run that trains one",
            id="a tokenizer as a model",
        ),
        pytest.param(
            {"checkpoint": 200},
            named("sft", ended(checkpoints=CHECKPOINTS)),
            Reason.INVALID_SPEC,
            "it kept those of the steps 300, 400: name one of those, or Final",
            id="a checkpoint that was deleted",
        ),
        pytest.param(
            {"checkpoint": 200},
            named("sft", ended()),
            Reason.INVALID_SPEC,
            "it has none: name one of those, or Final",
            id="a checkpoint of a run without any",
        ),
    ],
)
def test_what_is_in_the_way_is_told(
    source: dict[str, Any], other: RunView | None, reason: Reason, told: str
) -> None:
    found = lineage_of(chained("sft", **source), *([other] if other else []))
    assert found.parents == ()
    assert found.obstacle is not None
    assert found.obstacle.reason is reason
    assert found.obstacle.message.startswith("model.fromRun: ")
    assert told in found.obstacle.message


def test_a_run_that_is_being_deleted_is_none() -> None:
    going = run(key=RunKey("default", "sft"), spec=whole(), status=ended(), deleting=True)
    obstacle = lineage_of(chained("sft"), going).obstacle
    assert obstacle is not None
    assert obstacle.reason is MISSING
    assert "run sft is being deleted" in obstacle.message


def test_a_run_of_another_namespace_is_none() -> None:
    other = run(key=RunKey("team-b", "sft"), spec=whole(), status=ended())
    obstacle = lineage_of(chained("sft"), other).obstacle
    assert obstacle is not None
    assert obstacle.reason is MISSING


def test_every_field_that_names_a_run_has_its_parent() -> None:
    both = {
        "stage": "Pretrain",
        "architecture": {
            "family": "llama", "hiddenSize": 64, "numHiddenLayers": 1, "numAttentionHeads": 4,
        },
        "tokenizer": {"fromRun": {"name": "tok"}},
        "datasets": [{"uri": "s3://data/a.txt", "format": "Text"}],
        "training": {"maxSteps": 2, "globalBatchSize": 1, "learningRate": 0.001},
        "output": {"uri": "s3://runs/pre/"},
    }  # fmt: skip
    tok = {"stage": "Tokenizer", "output": {"uri": "s3://runs/tok/"}}
    (parent,) = lineage_of(both, named("tok", ended(), tok)).parents
    assert (parent.field, parent.uri) == ("tokenizer", "s3://runs/tok/model/")
    assert RunSpec.model_validate(both).resolved([parent]).source_uri == parent.uri


@pytest.mark.parametrize(
    ("names", "told"),
    [
        pytest.param(["one"], "one -> one", id="the run itself"),
        pytest.param(["two", "one"], "one -> two -> one", id="two runs"),
        pytest.param(["two", "three", "one"], "one -> two -> three -> one", id="three runs"),
        pytest.param(
            [*"abcdef", "one"], "one -> a -> b -> c -> ... -> one", id="more than are shown"
        ),
    ],
)
def test_runs_that_wait_for_each_other_are_refused_by_name(names: list[str], told: str) -> None:
    first, *rest = names
    others = [named(before, {}, chained(name)) for before, name in zip(names, rest, strict=False)]
    obstacle = lineage_of(chained(first), *others).obstacle
    assert obstacle is not None
    assert obstacle.reason is Reason.INVALID_SPEC
    assert f"the runs {told} wait for each other: take fromRun out of one" in obstacle.message


def test_a_circle_that_the_run_is_not_part_of_is_not_its_own_fault() -> None:
    others = [named("two", {}, chained("three")), named("three", {}, chained("two"))]
    obstacle = lineage_of(chained("two"), *others).obstacle
    assert obstacle is not None
    assert obstacle.reason is WAITS


def test_a_run_that_has_started_waits_for_nothing_so_there_is_no_circle() -> None:
    started = named("two", {"phase": "Running", "attempt": 1}, chained("one"))
    obstacle = lineage_of(chained("two"), started).obstacle
    assert obstacle is not None
    assert obstacle.reason is WAITS
