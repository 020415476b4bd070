"""From a report to what `kubectl get` shows."""

from __future__ import annotations

from typing import Any

import pytest
import specs
from cluster_fake import START

from llmtrain_api.progress import Progress, Report, Resolved
from llmtrain_api.run import RunSpec
from llmtrain_api.status import RunProgress, RunStatus
from llmtrain_operator.progress import ProgressBook
from llmtrain_operator.reporting import duration, eta, model_words, summary, with_report
from llmtrain_operator.snapshot import RunKey

KEY = RunKey("default", "one")


def report(attempt: int = 1, **fields: Any) -> Report:
    return Report.model_validate({"attempt": attempt, "activity": "Training", **fields})


def numbers(**fields: Any) -> dict[str, Any]:
    return {"step": 120, "totalSteps": 500, **fields}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (45, "45s"),
        (59.6, "1m"),
        (60, "1m"),
        (200, "3m20s"),
        (3600, "1h"),
        (7500, "2h5m"),
        (86_400, "1d"),
        (356_400, "4d3h"),
        (-5, "0s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"seconds_per_step": 0.5}, "3m10s", id="the rest at the present pace"),
        pytest.param({}, None, id="an unknown pace gives no time"),
        pytest.param({"seconds_per_step": 1, "step": 500}, None, id="the last step has none"),
        pytest.param({"seconds_per_step": 1, "step": 600}, None, id="nor has one beyond"),
    ],
)
def test_eta(fields: dict[str, Any], expected: str | None) -> None:
    assert eta(Progress(**{"step": 120, "total_steps": 500, **fields})) == expected


@pytest.mark.parametrize(
    ("total", "text"),
    [
        pytest.param(500, "120/500", id="both numbers"),
        pytest.param(0, "120", id="the step alone where nobody knows how many there are"),
    ],
)
def test_summary(total: int, text: str) -> None:
    assert summary(120, total) == text


def test_numbers_are_rounded_for_people() -> None:
    progress = numbers(
        epoch=1.23456,
        loss=1.7320508,
        evalLoss=0.000123456,
        learningRate=1.8181e-05,
        tokensPerSecond=12345.6,
    )
    seen = with_report(RunStatus(), report(progress=progress), START).progress
    assert seen is not None
    assert (seen.summary, seen.epoch, seen.loss) == ("120/500", "1.23", "1.732")
    assert (seen.eval_loss, seen.learning_rate) == ("0.0001235", "1.8e-05")
    assert (seen.tokens_per_second, seen.activity) == ("12346", "Training")
    assert seen.last_update_time == "2027-01-15T08:00:00Z"


def test_how_well_the_devices_are_used_is_told_in_short() -> None:
    progress = numbers(
        tokensPerSecondPerDevice=1543.2,
        mfu=0.41234,
        dataWait=0.004,
        peakMemoryDevice=65_712_291_840,
        peakMemoryHost=2_254_857_830,
    )
    seen = with_report(RunStatus(), report(progress=progress), START).progress
    assert seen is not None
    assert (seen.tokens_per_second_per_device, seen.mfu, seen.data_wait) == (
        "1543",
        "41.2%",
        "0.4%",
    )
    assert (seen.peak_memory_device, seen.peak_memory_host) == ("61.2Gi", "2.1Gi")


@pytest.mark.parametrize(
    ("stage", "size", "words"),
    [
        pytest.param("SFT", None, "s3://models/smollm2-135m/", id="a model is named by its place"),
        pytest.param("Tokenizer", None, "new BPE 32000", id="a tokenizer by kind and size"),
        pytest.param("Pretrain", None, "new llama", id="a new model by its family"),
        pytest.param(
            "Pretrain", 12_345_678, "new llama 12.3M", id="and its size, once it is known"
        ),
        pytest.param("Pretrain", 1_235_814_400, "new llama 1.2B", id="billions too"),
    ],
)
def test_the_column_model(stage: str, size: int | None, words: str) -> None:
    spec = RunSpec.model_validate(specs.good(stage))
    resolved = Resolved(total_parameters=size) if size else None
    assert model_words(spec, resolved) == words


def test_a_run_that_waits_for_another_names_it() -> None:
    spec = specs.changed(specs.good(), "model", {"fromRun": {"name": "earlier"}})
    assert model_words(RunSpec.model_validate(spec), None) == "result of earlier"


def test_a_long_place_is_cut_in_the_status() -> None:
    spec = RunSpec.model_validate(
        specs.changed(specs.good(), "model.uri", "s3://models/" + "a" * 900)
    )
    words = model_words(spec, None) or ""
    assert len(words) == 256
    assert words.endswith("a…")
    RunStatus(model=words)


def test_slow_runs_keep_a_digit_of_their_speed() -> None:
    seen = with_report(RunStatus(), report(progress=numbers(tokensPerSecond=3.21)), START).progress
    assert seen is not None
    assert seen.tokens_per_second == "3.2"


def test_what_a_report_leaves_out_stays() -> None:
    before = RunStatus(progress=RunProgress(step=5, eval_loss="0.5", loss="1", eta="3s"))
    seen = with_report(before, report(progress=numbers()), START).progress
    assert seen is not None
    assert (seen.step, seen.eval_loss, seen.loss) == (120, "0.5", "1")
    assert seen.eta is None, "but not a time that was true of another step"
    only_words = with_report(before, report(message="uploading"), START).progress
    assert only_words is not None
    assert (only_words.step, only_words.message) == (5, "uploading")


def test_checkpoints_artifacts_and_choices_are_told() -> None:
    told = report(
        checkpoints=[
            {"name": f"{n}0-a1r0", "step": n * 10, "time": "2027-01-15T08:00:00Z"}
            for n in (3, 2, 1)
        ],
        artifacts={"adapter": "s3://runs/one/adapter/"},
        resolved={
            "precision": "BF16",
            "specHash": "theirs",
            "parents": [{"field": "model", "name": "a", "uid": "b", "uri": "s3://not/theirs/"}],
        },
    )
    status = with_report(RunStatus(), told, START)
    assert status.latest_checkpoint == "30-a1r0"
    assert [c.step for c in status.checkpoints] == [30, 20, 10]
    assert status.artifacts is not None
    assert status.artifacts.adapter == "s3://runs/one/adapter/"
    assert status.resolved is not None
    assert (status.resolved.precision, status.resolved.spec_hash) == ("BF16", None)
    assert status.resolved.parents is None
    later = with_report(status, report(artifacts={"model": "s3://runs/one/model/"}), START)
    assert later.artifacts is not None
    assert later.artifacts.adapter == "s3://runs/one/adapter/"


def test_a_book_joins_reports_of_one_attempt() -> None:
    changed: list[RunKey] = []
    book = ProgressBook(changed.append)
    book.put(KEY, "uid", report(progress=numbers(), resolved={"device": "cpu"}), START)
    book.put(KEY, "uid", report(message="saving", resolved={"precision": "FP32"}), START + 1)
    entry = book.get("uid")
    assert entry is not None
    assert entry.heard_at == START + 1
    assert entry.report.progress is not None
    assert entry.report.message == "saving"
    assert entry.report.resolved is not None
    assert (entry.report.resolved.device, entry.report.resolved.precision) == ("cpu", "FP32")
    assert changed == [KEY, KEY]


def test_a_book_starts_anew_with_each_attempt_and_drops_late_reports() -> None:
    book = ProgressBook(lambda key: None)
    book.put(KEY, "uid", report(attempt=1, progress=numbers()), START)
    book.put(KEY, "uid", report(attempt=2), START)
    book.put(KEY, "uid", report(attempt=1, progress=numbers(step=400)), START)
    entry = book.get("uid")
    assert entry is not None
    assert (entry.report.attempt, entry.report.progress) == (2, None)
    book.forget_all_but(set())
    assert book.get("uid") is None
