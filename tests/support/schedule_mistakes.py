"""Schedules that are refused at `kubectl apply`, each with one mistake in a good one.

The unit tests hold that pydantic refuses it, the end-to-end tests that the API server does, with
the message in `golden/schedules_refused_at_apply.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specs import REMOVE, Spec, changed, good

URI = "runTemplate.spec.output.uri"


def good_schedule(stage: str = "SFT") -> Spec:
    """Returns the smallest useful spec of a schedule."""
    run = changed(good(stage), "output.uri", "s3://runs/{schedule}/{timestamp}/")
    return {"schedule": "0 2 * * 0", "runTemplate": {"spec": run}}


@dataclass(frozen=True)
class Mistake:
    """One mistake: a sentence, and the fields that make it."""

    id: str
    changes: dict[str, Any]
    name: str = "mistake"

    def spec(self) -> Spec:
        """Returns the good schedule with this mistake in it."""
        spec = good_schedule()
        for path, value in self.changes.items():
            spec = changed(spec, path, value)
        return spec


_LABELS = "runTemplate.metadata.labels"
MISTAKES = (
    Mistake("no schedule", {"schedule": REMOVE}),
    Mistake("a schedule in words", {"schedule": "every Sunday"}),
    Mistake("six fields", {"schedule": "0 0 2 * * 0"}),
    Mistake("a word that CronJob alone knows", {"schedule": "@every 1h"}),
    Mistake("minute 60", {"schedule": "60 2 * * *"}),
    Mistake("Sunday as 7", {"schedule": "0 2 * * 7"}),
    Mistake("the last day of a month", {"schedule": "0 2 L * *"}),
    Mistake("every 15 minutes from 5 on", {"schedule": "5/15 * * * *"}),
    Mistake("every other day beside a day of the week", {"schedule": "0 2 */2 * 1"}),
    Mistake("a time zone in the schedule", {"schedule": "TZ=Europe/Berlin 0 2 * * 0"}),
    Mistake("an offset for a time zone", {"timeZone": "+01:00"}),
    Mistake("the time zone of wherever it runs", {"timeZone": "Local"}),
    Mistake("a mistyped field", {"timezone": "Europe/Berlin"}),
    Mistake("a policy that does not exist", {"concurrencyPolicy": "Queue"}),
    Mistake("a deadline of a second", {"startingDeadlineSeconds": 1}),
    Mistake("a jitter of a day", {"jitterSeconds": 86_400}),
    Mistake("a negative history", {"failedRunsHistoryLimit": -1}),
    Mistake("no template", {"runTemplate": REMOVE}),
    Mistake("one place for all runs", {URI: "s3://runs/weekly/"}),
    Mistake("one place for the runs of a day", {URI: "s3://runs/weekly/{date}/"}),
    Mistake("a variable that does not exist", {URI: "s3://runs/{run}/{week}/"}),
    Mistake("a brace that is not closed", {URI: "s3://runs/{run}/{date/"}),
    Mistake("a run that cannot be", {"runTemplate.spec.training.learningRate": 2}),
    Mistake("a run without a model", {"runTemplate.spec.model": REMOVE}),
    Mistake(
        "a label by which Argo CD knows its own", {_LABELS: {"app.kubernetes.io/instance": "x"}}
    ),
    Mistake(
        "an annotation by which Argo CD knows its own",
        {"runTemplate.metadata.annotations": {"argocd.argoproj.io/tracking-id": "x"}},
    ),
    Mistake("a label of ours", {_LABELS: {"llmtrain.dev/schedule": "other"}}),
)
BAD_NAMES = (
    Mistake(
        "a schedule's name that is too long for its runs",
        {},
        "a-name-of-thirty-two-characters-"[:31] + "x",
    ),
    Mistake("a schedule's name that starts with a digit", {}, "7-days"),
)
