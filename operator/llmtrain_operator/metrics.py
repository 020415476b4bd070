"""What the operator counts, in Prometheus' terms: base units, `_total` for counters.

One module for all of them, so that this file is the list that `docs/operations.md` explains. The
process's own memory and CPU come from prometheus-client's default registry.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RUNS = Gauge("llmtrain_runs", "Runs that the operator knows, by phase.", ["phase"])

RECONCILE_SECONDS = Histogram(
    "llmtrain_reconcile_duration_seconds",
    "Time from taking a run off the queue to having carried out its plan.",
    # One reconcile is a few API calls of some milliseconds each; 30 s is their timeout.
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RECONCILE_ERRORS = Counter(
    "llmtrain_reconcile_errors_total", "Reconciles that failed and were queued again."
)
QUEUE_DEPTH = Gauge(
    "llmtrain_queue_depth",
    "Runs and schedules that wait for a worker; delayed ones do not count.",
    ["kind"],
)
for _kind in ("run", "schedule"):
    QUEUE_DEPTH.labels(kind=_kind)
STATUS_WRITES = Counter(
    "llmtrain_status_writes_total", "Writes to the status of a run or schedule."
)

SCHEDULES = Gauge(
    "llmtrain_schedules", "Schedules that the operator knows, by readiness.", ["ready"]
)
SCHEDULED_RUNS = Counter(
    "llmtrain_scheduled_runs_total",
    "Times of schedules: at which a run was created, or refused, or that were skipped.",
    ["result"],
)
SCHEDULE_RESULTS = ("created", "refused", "skipped")
for _result in SCHEDULE_RESULTS:
    SCHEDULED_RUNS.labels(result=_result)
SCHEDULE_DELAY_SECONDS = Histogram(
    "llmtrain_schedule_delay_seconds",
    "Time from when a run of a schedule was due, jitter included, to when it was made.",
    # In time is a second or less; what waits for another run, or was missed, takes hours.
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600, 21_600, 86_400),
)

PROGRESS_POSTS = Counter(
    "llmtrain_progress_posts_total", "Reports that reached the progress endpoint.", ["result"]
)
"""`result` is one of `PROGRESS_RESULTS`."""

PROGRESS_RESULTS = (
    "accepted",
    "unauthenticated",
    "forbidden",
    "malformed",
    "throttled",
    "unavailable",
)
for _result in PROGRESS_RESULTS:
    # A counter that first appears with its first increment hides that increment from `rate()`.
    PROGRESS_POSTS.labels(result=_result)
