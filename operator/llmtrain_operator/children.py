"""What an attempt consists of in the cluster: a ConfigMap, a headless Service and a Job; pure.

Names are a function of the run and the attempt, so making them twice is harmless. The Service is
one per run, and only there where pods have to find each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llmtrain_api import API_VERSION
from llmtrain_api.layout import (
    CA_FILE_NAME,
    LABEL_ATTEMPT,
    LABEL_RUN,
    LABEL_RUN_UID,
    RUN_FILE_NAME,
)
from llmtrain_api.preparing import Task
from llmtrain_api.references import Parent
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import RunFile
from llmtrain_operator.overlay import apply_overlay
from llmtrain_operator.pods import build_pod
from llmtrain_operator.preparation import nodes_of, spec_of_pods
from llmtrain_operator.snapshot import JobView, Object, RunView

_LETTERS: dict[Task, str] = {"Train": "a", "Prepare": "p"}


@dataclass(frozen=True)
class Children:
    """The objects of one attempt. The Job is made last, when its pods can start."""

    config_map: Object
    service: Object | None
    job: Object


def job_name(run: str, attempt: int, task: Task = "Train") -> str:
    """Returns the name of an attempt's Job and ConfigMap, at most 47 characters."""
    return f"{run}-{_LETTERS[task]}{attempt}"


def job_names(run: str, attempt: int) -> tuple[str, ...]:
    """Returns the names that an attempt's Job and ConfigMap may have."""
    return tuple(job_name(run, attempt, task) for task in _LETTERS)


def task_of(job: JobView) -> Task:
    """Returns what a Job of ours is for, by its name."""
    return "Prepare" if job.name == job_name(job.run, job.attempt, "Prepare") else "Train"


def service_name(run: str) -> str:
    """Returns the name of a run's Service; the domain in which its pods find each other."""
    return f"{run}-workers"


def build_children(
    run: RunView,
    spec: RunSpec,
    attempt: int,
    *,
    image: str,
    progress_url: str,
    ca: str,
    parents: Sequence[Parent] = (),
    task: Task = "Train",
) -> Children:
    """Returns the objects of an attempt; `ca` is the PEM by which pods check the progress endpoint.

    Raises:
        ConfigError: `workers.podTemplate` sets what the run cannot do without.
    """
    name, gang = job_name(run.key.name, attempt, task), nodes_of(task, spec) > 1
    service = service_name(run.key.name)
    run_file = RunFile(
        name=run.key.name,
        namespace=run.key.namespace,
        uid=run.uid,
        attempt=attempt,
        task="Prepare" if task == "Prepare" else None,
        spec=spec,
        parents=list(parents) or None,
        master_address=f"{name}-0.{service}" if gang else "127.0.0.1",
        progress_url=progress_url,
    )
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(run, name, attempt),
        "data": {
            RUN_FILE_NAME: json.dumps(run_file.to_dict(), indent=1),
            CA_FILE_NAME: ca,
        },
    }
    return Children(
        config_map=config_map,
        service=_build_service(run, service) if gang else None,
        job=_build_job(run, spec_of_pods(task, spec), name, attempt, image),
    )


def _build_job(run: RunView, spec: RunSpec, name: str, attempt: int, image: str) -> Object:
    pod = build_pod(
        spec,
        image=image,
        config_map=name,
        service=service_name(run.key.name),
        run_uid=run.uid,
    )
    template = {"metadata": {"labels": _labels(run, attempt)}, "spec": pod}
    if spec.workers.pod_template is not None:
        template = apply_overlay(template, spec.workers.pod_template)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(run, name, attempt),
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.workers.nodes,
            "parallelism": spec.workers.nodes,
            # One lost pod ends the attempt: the operator starts the next one under a new name.
            "backoffLimit": 0,
            # The Job has failed only when its last pod has stopped, so two gangs never overlap.
            "podReplacementPolicy": "Failed",
            "template": template,
        },
    }


def _build_service(run: RunView, name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(run, name, None),
        "spec": {
            "clusterIP": "None",
            "selector": {LABEL_RUN_UID: run.uid},
            "publishNotReadyAddresses": True,  # Pods meet before any of them is ready.
        },
    }


def _metadata(run: RunView, name: str, attempt: int | None) -> Object:
    return {
        "name": name,
        "namespace": run.key.namespace,
        "labels": _labels(run, attempt),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "LLMTrainRun",
                "name": run.key.name,
                "uid": run.uid,
                "controller": True,
            }
        ],
    }


def _labels(run: RunView, attempt: int | None) -> dict[str, str]:
    labels = {LABEL_RUN: run.key.name, LABEL_RUN_UID: run.uid}
    return labels if attempt is None else {**labels, LABEL_ATTEMPT: str(attempt)}
