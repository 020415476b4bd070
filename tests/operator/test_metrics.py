"""Metrics keep the conventions that dashboards and alerts rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric

from llmtrain_operator import metrics

OURS = {metric.name: metric for metric in REGISTRY.collect() if metric.name.startswith("llmtrain_")}


def test_all_metrics_are_known_under_these_names() -> None:
    assert sorted(OURS) == [
        "llmtrain_progress_posts",
        "llmtrain_queue_depth",
        "llmtrain_reconcile_duration_seconds",
        "llmtrain_reconcile_errors",
        "llmtrain_runs",
        "llmtrain_schedule_delay_seconds",
        "llmtrain_scheduled_runs",
        "llmtrain_schedules",
        "llmtrain_status_writes",
    ]


@pytest.mark.parametrize("metric", OURS.values(), ids=OURS)
def test_a_metric_is_explained_and_named_by_the_conventions(metric: Metric) -> None:
    assert metric.documentation.endswith(".")
    assert re.fullmatch(r"llmtrain(_[a-z]+)+", metric.name)
    if metric.type == "histogram":
        assert metric.name.endswith("_seconds")


def test_every_result_of_a_post_is_counted_from_zero() -> None:
    samples = OURS["llmtrain_progress_posts"].samples
    assert {s.labels["result"] for s in samples} >= set(metrics.PROGRESS_RESULTS)
    samples = OURS["llmtrain_scheduled_runs"].samples
    assert {s.labels["result"] for s in samples} >= set(metrics.SCHEDULE_RESULTS)


def test_the_page_for_operators_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(llmtrain_\w+)` \| (\w+) \|", page, re.MULTILINE))
    totals = {n + "_total" if m.type == "counter" else n: m.type for n, m in OURS.items()}
    assert rows == totals
    assert set(re.findall(r"\b(llmtrain_[a-z_]+)\b(?=[\[{)])", page)) <= set(totals)
    results = (*metrics.PROGRESS_RESULTS, *metrics.SCHEDULE_RESULTS)
    assert all(f"`{result}`" in page for result in results)
