"""The attempt that only makes the tokens: a Job of one pod, before the gang has its devices; pure.

It is an attempt like any other: it is started, watched, diagnosed and tried again in the same way,
and its failures count alike. What is its own is said here.
"""

from __future__ import annotations

from typing import Any

from llmtrain_api.preparing import PrepareJob, Task
from llmtrain_api.run import RunSpec
from llmtrain_api.status import RunStatus


def next_task(status: RunStatus, spec: RunSpec) -> Task:
    """Returns what the next attempt is for."""
    wanted = spec.preparing.job is not None
    return "Prepare" if wanted and not status.prepared else "Train"


def nodes_of(task: Task, spec: RunSpec) -> int:
    """Returns the number of an attempt's pods."""
    return 1 if task == "Prepare" else spec.workers.nodes


def spec_of_pods(task: Task, spec: RunSpec) -> RunSpec:
    """Returns the spec by which an attempt's pods are built."""
    if task == "Train":
        return spec
    job = spec.preparing.job or PrepareJob()
    changes: dict[str, Any] = {
        "nodes": 1,
        "processes_per_node": 1,
        "resources": job.resources,
        "node_selector": job.node_selector,
        "tolerations": job.tolerations,
        "affinity": None,
        "pod_template": _metadata_of(spec.workers.pod_template),
    }
    return spec.model_copy(update={"workers": spec.workers.model_copy(update=changes)})


def _metadata_of(overlay: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns what a platform writes on pods: the rest may be about devices."""
    metadata = (overlay or {}).get("metadata")
    return {"metadata": metadata} if metadata else None
