"""An API server in memory, for what the operator does: objects, versions, UIDs, and refusals.

It knows nothing of schemas and runs no controllers: a test plays the Job controller and the kubelet
itself (`make_pods`, `end_pod`, `end_job`). A change reaches the cache at once, as a watch would.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from llmtrain_operator.cache import Cache
from llmtrain_operator.kopf_bridge import (
    on_job_event,
    on_pod_event,
    on_run_event,
    on_schedule_event,
)
from llmtrain_operator.kube import (
    JOBS,
    PODS,
    RUNS,
    SCHEDULES,
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    Resource,
)
from llmtrain_operator.snapshot import TRAINER, format_time

Object = dict[str, Any]
START = 1_800_000_000.0
"""The time at which every test begins, in seconds since 1970."""


class FakeKube:
    """Has the methods of `Kube`. `fail` may raise before any call is carried out."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.now = START
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.writes: list[str] = []
        self.fail: Callable[[str, str, str], None] = lambda verb, kind, name: None
        self._numbers = itertools.count(1)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        self.fail("get", resource.kind, name)
        return copy.deepcopy(self._find(resource, namespace, name))

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[list[Object], int]:
        self.fail("list", resource.kind, "")
        uid = field_selector.removeprefix("involvedObject.uid=")
        found = [
            copy.deepcopy(body)
            for (kind, space, _), body in self.objects.items()
            if kind == resource.kind and namespace in (None, space)
            if not uid or body["involvedObject"]["uid"] == uid
            if label_selector in ("", *body["metadata"].get("labels", {}))
        ]
        return found, next(self._numbers)

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        self.fail("create", resource.kind, name)
        if (resource.kind, namespace, name) in self.objects:
            raise AlreadyExistsError(f'{resource.plural} "{name}" already exists')
        self.writes.append(f"create {resource.kind} {name}")
        return self.put(resource, namespace, body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Object,
        *,
        subresource: str = "",
    ) -> Object:
        self.fail("patch", resource.kind, name)
        found = self._find(resource, namespace, name)
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise ConflictError(f'{resource.plural} "{name}": the object has been modified')
        self.writes.append(f"patch {resource.kind}{'/' * bool(subresource)}{subresource} {name}")
        _merge(found, {k: v for k, v in body.items() if k != "metadata"})
        return self._changed(resource, found)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        self.fail("delete", resource.kind, name)
        found = self.objects.get((resource.kind, namespace, name))
        if found is None or uid not in (None, found["metadata"]["uid"]):
            return False
        self.writes.append(f"delete {resource.kind} {name}")
        self.remove(resource, namespace, name)
        return True

    # What the cluster does by itself.

    def put(self, resource: Resource, namespace: str, body: Object) -> Object:
        """Stores a new object."""
        stored = copy.deepcopy(body)
        number = next(self._numbers)
        stored["metadata"] |= {
            "namespace": namespace,
            "uid": f"uid-{number}",
            "generation": 1,
            "creationTimestamp": format_time(self.now),
        }
        self.objects[resource.kind, namespace, stored["metadata"]["name"]] = stored
        return self._changed(resource, stored)

    def change(self, resource: Resource, namespace: str, name: str, change: Object) -> Object:
        """Merges `change` into an object, as somebody else would."""
        found = self._find(resource, namespace, name)
        _merge(found, change)
        if "spec" in change:
            found["metadata"]["generation"] += 1
        return self._changed(resource, found)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """Removes an object."""
        found = self.objects.pop((resource.kind, namespace, name))
        self._tell(resource, found, deleted=True)

    def make_pods(self, job: str, namespace: str = "default", **status: Any) -> list[str]:
        """Makes the pods of a Job, as its controller does; returns their names."""
        body = self.objects["Job", namespace, job]
        names = []
        for index in range(body["spec"]["completions"]):
            template = copy.deepcopy(body["spec"]["template"])
            names.append(f"{job}-{index}-abcde")
            template["metadata"] |= {
                "name": names[-1],
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [{"uid": body["metadata"]["uid"], "controller": True}],
            }
            self.put(PODS, namespace, {**template, "status": status or {"phase": "Pending"}})
        return names

    def run_pods(self, job: str, namespace: str = "default") -> None:
        """Has all pods of a Job run, making them first."""
        if not self.pods_of(job, namespace):
            self.make_pods(job, namespace)
        for name in self.pods_of(job, namespace):
            state = {"state": {"running": {}}, "name": TRAINER, "imageID": ""}
            status = {"phase": "Running", "containerStatuses": [state]}
            self.change(PODS, namespace, name, {"spec": {"nodeName": "node0"}, "status": status})

    def end_pod(
        self, name: str, code: int, message: str = "", reason: str = "", namespace: str = "default"
    ) -> None:
        """Has the trainer of a pod end."""
        terminated = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "message": message,
            "finishedAt": format_time(self.now),
        }
        state = {"state": {"terminated": terminated}, "name": TRAINER}
        phase = "Failed" if code else "Succeeded"
        self.change(
            PODS, namespace, name, {"status": {"phase": phase, "containerStatuses": [state]}}
        )

    def end_job(self, name: str, condition: str, namespace: str = "default") -> None:
        """Has a Job be `Complete` or `Failed`."""
        said = {"type": condition, "status": "True", "message": "as its controller says"}
        self.change(JOBS, namespace, name, {"status": {"conditions": [said]}})

    def pods_of(self, job: str, namespace: str = "default") -> list[str]:
        """Returns the names of a Job's pods."""
        return [
            name
            for kind, space, name in self.objects
            if kind == "Pod" and space == namespace and name.startswith(f"{job}-")
        ]

    def names(self, kind: str) -> list[str]:
        """Returns the names of all objects of a kind."""
        return sorted(name for found, _, name in self.objects if found == kind)

    def status(self, run: str, namespace: str = "default") -> Object:
        """Returns the status of a run."""
        return dict(self.objects["LLMTrainRun", namespace, run].get("status", {}))

    def _find(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self.objects.get((resource.kind, namespace, name))
        if found is None:
            raise NotFoundError(f'{resource.plural} "{name}" not found')
        return found

    def _changed(self, resource: Resource, body: Object) -> Object:
        body["metadata"]["resourceVersion"] = str(next(self._numbers))
        self._tell(resource, body, deleted=False)
        return copy.deepcopy(body)

    def _tell(self, resource: Resource, body: Object, *, deleted: bool) -> None:
        seen = copy.deepcopy(body)
        if resource is RUNS:
            on_run_event(self.cache, deleted, seen)
        elif resource is JOBS:
            on_job_event(self.cache, deleted, seen)
        elif resource is PODS:
            on_pod_event(self.cache, deleted, seen)
        elif resource is SCHEDULES:
            on_schedule_event(self.cache, deleted, seen)


def _merge(target: Object, change: Object) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)
