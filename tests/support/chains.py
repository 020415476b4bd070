"""Runs of a chain, as specs and in a fake cluster with one operator."""

from __future__ import annotations

from typing import Any

from lives import last_words
from world import World, spec_with

from llmtrain_api.exits import ExitClass
from llmtrain_operator.kube import JOBS, PODS, RUNS
from llmtrain_operator.snapshot import RunKey

Object = dict[str, Any]


def chained(name: str, **source: Any) -> Object:
    """Returns the spec of a small run of all weights that starts from the run `name`."""
    spec = {**spec_with(), "model": {"fromRun": {"name": name, **source}}, "workers": {"nodes": 1}}
    return {**spec, "tuning": {"method": "Full"}}


def whole(**changes: Any) -> Object:
    """Returns the spec of a small run of all weights, with top-level fields replaced."""
    return {**spec_with(), "tuning": {"method": "Full"}, "workers": {"nodes": 1}, **changes}


class Chain(World):
    """A cluster with several runs; each method settles all of them."""

    async def apply_runs(self, **specs: Object) -> None:
        """Makes runs by name, in this order, each with an output of its own name."""
        for name, spec in specs.items():
            own = {**spec, "output": {"uri": f"s3://runs/{name}/"}}
            self.kube.put(RUNS, "default", {"metadata": {"name": name}, "spec": own})
        await self.settle_all()

    async def settle_all(self, seconds: float = 0.0) -> None:
        """Lets time pass, then reconciles every run until there is nothing to do."""
        self.kube.now += seconds
        for _ in range(2):
            for key in sorted(self.cache.runs):
                self.focus(key.name)
                await self.settle()

    def focus(self, name: str) -> None:
        """Makes `name` the run that `status`, `phase`, `condition` and `message` are about."""
        self.KEY = RunKey("default", name)

    async def succeed(self, name: str, attempt: int = 1) -> None:
        """Has the attempt of a run train to its end."""
        job = f"{name}-a{attempt}"
        self.kube.run_pods(job)
        for pod in self.kube.pods_of(job):
            self.kube.end_pod(pod, 0)
        self.kube.end_job(job, "Complete")
        await self.settle_all()

    async def fail(self, name: str, attempt: int = 1) -> None:
        """Has the attempt of a run end with a spec that cannot work: no retry can heal it."""
        job = f"{name}-a{attempt}"
        self.kube.run_pods(job)
        for pod in self.kube.pods_of(job):
            self.kube.end_pod(pod, 80, last_words(ExitClass.CONFIG))
        self.kube.end_job(job, "Failed")
        await self.settle_all()

    def delete(self, name: str) -> None:
        """Deletes a run and, as garbage collection does, all that it owns."""
        self._collect(self.kube.objects["LLMTrainRun", "default", name]["metadata"]["uid"])
        self.kube.remove(RUNS, "default", name)

    def _collect(self, owner: str) -> None:
        for (kind, namespace, name), body in list(self.kube.objects.items()):
            owners = body["metadata"].get("ownerReferences", [])
            if owner not in [reference["uid"] for reference in owners]:
                continue
            self._collect(body["metadata"]["uid"])
            if kind in ("Job", "Pod"):
                self.kube.remove(JOBS if kind == "Job" else PODS, namespace, name)
            else:
                del self.kube.objects[kind, namespace, name]

    def said(self, name: str) -> dict[str, str]:
        """Returns the status and reason of each condition of a run, such as `False Pending`."""
        conditions = self.kube.status(name)["conditions"]
        return {c["type"]: f"{c['status']} {c['reason']}" for c in conditions}

    async def woken(self) -> set[str]:
        """Returns the names of the runs in the queue, and empties it."""
        names = set()
        while len(self.queue):
            key = await self.queue.get()
            names.add(key.name)
            self.queue.done(key)
        return names
