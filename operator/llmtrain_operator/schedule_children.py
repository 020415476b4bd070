"""The run that a schedule makes for one of its times, or for a person; pure.

Its name is a function of the schedule and the time, so making it twice is harmless.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime

from llmtrain_api import API_VERSION
from llmtrain_api.layout import ANNOTATION_SCHEDULED_TIME, LABEL_SCHEDULE
from llmtrain_operator.schedule_snapshot import ScheduleView
from llmtrain_operator.snapshot import Object, format_time
from llmtrain_operator.timetable import MINUTE, Timetable

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def run_name(schedule: str, time: float) -> str:
    """Returns the name of the run for a time, which is on a whole minute: `weekly-29762640`."""
    return f"{schedule}-{int(time // MINUTE)}"


def manual_run_name(schedule: str, now: float) -> str:
    """Returns a name for a run that a person makes: no run of a time has such a name."""
    seconds, digits = int(now), ""
    while seconds:
        seconds, digit = divmod(seconds, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return f"{schedule}-m{digits}"


def build_run(schedule: ScheduleView, name: str, time: float) -> Object:
    """Returns the run of a schedule for a time, in seconds since 1970."""
    template = schedule.spec["runTemplate"]
    metadata = template.get("metadata") or {}
    spec = copy.deepcopy(template["spec"])
    spec["output"]["uri"] = _filled(spec["output"]["uri"], schedule, name, time)
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMTrainRun",
        "metadata": {
            "name": name,
            "namespace": schedule.key.namespace,
            "labels": {**(metadata.get("labels") or {}), LABEL_SCHEDULE: schedule.key.name},
            "annotations": {
                **(metadata.get("annotations") or {}),
                ANNOTATION_SCHEDULED_TIME: format_time(time),
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": schedule.kind,
                    "name": schedule.key.name,
                    "uid": schedule.uid,
                    "controller": True,
                }
            ],
        },
        "spec": spec,
    }


def _filled(uri: str, schedule: ScheduleView, name: str, time: float) -> str:
    """Returns the place of one run: a rule of the API holds the template to these variables."""
    zone = schedule.spec.get("timeZone", "Etc/UTC")
    values = {
        "schedule": schedule.key.name,
        "run": name,
        "date": Timetable(schedule.spec["schedule"], zone).day(time),
        "timestamp": datetime.fromtimestamp(time, UTC).strftime("%Y%m%dT%H%M%SZ"),
    }
    for variable, value in values.items():
        uri = uri.replace(f"{{{variable}}}", value)
    return uri
