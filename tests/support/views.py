"""Builders of what the operator sees, with defaults: a test names only what its case is about."""

from __future__ import annotations

import json
from typing import Any

from cluster_fake import START
from world import spec_with

from llmtrain_api.exits import ExitClass
from llmtrain_api.run import RunSpec
from llmtrain_api.status import RunStatus
from llmtrain_operator.snapshot import (
    ClusterEvent,
    Defaults,
    JobView,
    PodView,
    RunKey,
    RunView,
    Snapshot,
    format_time,
)

RUN_UID = "run-uid"
JOB_UID = "job-uid"


def spec(**changes: Any) -> RunSpec:
    """Returns the spec of a small run of two nodes."""
    return RunSpec.model_validate(spec_with(**changes))


def run(**changes: Any) -> RunView:
    """Returns the run `one`."""
    fields: dict[str, Any] = {
        "key": RunKey("default", "one"),
        "uid": RUN_UID,
        "generation": 1,
        "version": 1,
        "deleting": False,
        "spec": spec_with(),
        "status": {},
    }
    return RunView(**{**fields, **changes})


def job(**changes: Any) -> JobView:
    """Returns the Job of the first attempt."""
    fields: dict[str, Any] = {
        "namespace": "default",
        "name": "one-a1",
        "uid": JOB_UID,
        "version": 1,
        "run": "one",
        "owner_uid": RUN_UID,
        "attempt": 1,
        "created": START,
        "deleting": False,
        "ending": False,
        "complete": False,
        "failed": False,
        "message": "",
    }
    return JobView(**{**fields, **changes})


def pod(index: int = 0, **changes: Any) -> PodView:
    """Returns a pod of the first attempt that runs."""
    fields: dict[str, Any] = {
        "namespace": "default",
        "name": f"one-a1-{index}-abcde",
        "uid": f"pod-{index}",
        "version": 1,
        "run": "one",
        "run_uid": RUN_UID,
        "job_uid": JOB_UID,
        "attempt": 1,
        "index": index,
        "node_name": f"node{index}",
        "phase": "Running",
        "reason": "",
        "message": "",
        "unschedulable": "",
        "disruption": "",
        "disruption_time": None,
        "deletion_time": None,
        "image": "",
        "waiting": "",
        "waiting_message": "",
        "created": START,
        "waits_since": START,
        "exit_code": None,
        "exit_reason": "",
        "exit_message": "",
        "finished": None,
    }
    return PodView(**{**fields, **changes})


def failed_pod(index: int, code: int, message: str = "", **changes: Any) -> PodView:
    """Returns a pod whose trainer ended with an exit code."""
    fields = {
        "phase": "Failed",
        "exit_code": code,
        "exit_reason": "Error",
        "exit_message": message,
        "finished": START + 60,
    }
    return pod(index, **{**fields, **changes})


def words(exit_class: ExitClass, at: float = START, **fields: Any) -> str:
    """Returns a termination message."""
    said = {
        "exitClass": exit_class,
        "message": f"it was {exit_class}",
        "node": 0,
        "time": format_time(at),
    }
    return json.dumps({**said, **fields})


def event(message: str, reason: str = "Failed", warning: bool = True) -> ClusterEvent:
    """Returns an Event of a Job or a pod."""
    return ClusterEvent(reason=reason, message=message, warning=warning, time=START)


def snapshot(status: RunStatus | None = None, **changes: Any) -> Snapshot:
    """Returns what there is to see of a run that has just been made."""
    written = status.to_dict() if status is not None else {}
    fields: dict[str, Any] = {
        "run": run(status=written),
        "spec": spec(),
        "refusal_of_spec": "",
        "now": START,
        "defaults": Defaults("trainer:1"),
    }
    return Snapshot(**{**fields, **changes})
