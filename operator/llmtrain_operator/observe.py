"""Gathers the snapshot of a run: from the cache, the progress book, and Events read on demand.

Events are not watched: they are read only for workers that are late, and not more often than every
few seconds for one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmtrain_api.errors import ConfigError
from llmtrain_api.run import RunSpec
from llmtrain_operator.acceptance import accept
from llmtrain_operator.cache import Cache
from llmtrain_operator.children import task_of
from llmtrain_operator.kube import EVENTS, Kube
from llmtrain_operator.lineage import find_lineage
from llmtrain_operator.progress import ProgressBook
from llmtrain_operator.snapshot import (
    ClusterEvent,
    Defaults,
    JobView,
    Lineage,
    Object,
    PodView,
    Refusal,
    RunKey,
    RunView,
    Snapshot,
    parse_time,
)
from llmtrain_operator.waiting import EVENTS_AFTER_SECONDS, late_pod

EVENTS_KEPT = 8
READ_EVENTS_EVERY_SECONDS = 4.0


class Observer:
    """Makes snapshots. `now` is the time in seconds since 1970."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        book: ProgressBook,
        defaults: Defaults,
        now: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._book = book
        self._defaults = defaults
        self._now = now
        self.refusals: dict[str, Refusal] = {}
        """By run UID: the child that the API server did not take last."""
        self._accepted: dict[str, tuple[int, RunSpec | None, str]] = {}
        self._events: dict[str, tuple[float, tuple[ClusterEvent, ...]]] = {}

    async def observe(self, key: RunKey) -> Snapshot | None:
        """Returns the snapshot of a run, or None if there is no such run."""
        run = self._cache.runs.get(key)
        if run is None:
            return None
        spec, refusal_of_spec = self._accept(run)
        jobs, pods = self._cache.jobs_of(key), self._cache.pods_of(key)
        entry = self._book.get(run.uid)
        return Snapshot(
            run=run,
            spec=spec,
            refusal_of_spec=refusal_of_spec,
            now=self._now(),
            defaults=self._defaults,
            jobs=jobs,
            pods=pods,
            events=await self._events_of(run, jobs, pods, spec),
            report=entry.report if entry else None,
            reported_at=entry.heard_at if entry else 0.0,
            refusal=self.refusals.get(run.uid),
            lineage=find_lineage(key, spec, self._cache.runs) if spec else Lineage(),
        )

    def forget_all_but(self, uids: set[str]) -> None:
        """Drops what is remembered of runs that are gone."""
        for memory in (self.refusals, self._accepted, self._events):
            for uid in memory.keys() - uids:
                del memory[uid]

    def _accept(self, run: RunView) -> tuple[RunSpec | None, str]:
        known = self._accepted.get(run.uid)
        if known is not None and known[0] == run.generation:
            return known[1], known[2]
        try:
            spec, refusal = accept(run.spec, self._defaults.trainer_image), ""
        except ConfigError as error:
            spec, refusal = None, str(error)
        self._accepted[run.uid] = (run.generation, spec, refusal)
        return spec, refusal

    async def _events_of(
        self,
        run: RunView,
        jobs: Sequence[JobView],
        pods: Sequence[PodView],
        spec: RunSpec | None,
    ) -> tuple[ClusterEvent, ...]:
        now = self._now()
        late = late_object(run, jobs, pods, spec.workers.nodes if spec else 1, now)
        if late is None:
            self._events.pop(run.uid, None)
            return ()
        read_at, known = self._events.get(run.uid, (0.0, ()))
        if now < read_at + READ_EVENTS_EVERY_SECONDS:
            return known
        items, _ = await self._kube.list_all(
            EVENTS, run.key.namespace, field_selector=f"involvedObject.uid={late}"
        )
        events = sorted((cluster_event(item) for item in items), key=lambda event: event.time)
        newest = tuple(events[-EVENTS_KEPT:])
        self._events[run.uid] = (now, newest)
        return newest


def late_object(
    run: RunView, jobs: Sequence[JobView], pods: Sequence[PodView], nodes: int, now: float
) -> str | None:
    """Returns the UID of the Job or pod whose Events may say why the workers are late."""
    job = next((job for job in reversed(jobs) if job.owner_uid == run.uid), None)
    if job is None or job.complete or job.failed or job.ending or job.deleting:
        return None
    own = [pod for pod in pods if pod.job_uid == job.uid]
    if len(own) < (1 if task_of(job) == "Prepare" else nodes):
        return job.uid if now > job.created + EVENTS_AFTER_SECONDS else None
    pod = late_pod(own)
    if pod is None or now < pod.waits_since + EVENTS_AFTER_SECONDS:
        return None
    return pod.uid


def cluster_event(body: Object) -> ClusterEvent:
    """Returns the view of an Event, in its old or new form."""
    series: dict[str, Any] = body.get("series") or {}
    time = (
        series.get("lastObservedTime")
        or body.get("lastTimestamp")
        or body.get("eventTime")
        or body["metadata"].get("creationTimestamp")
    )
    return ClusterEvent(
        reason=body.get("reason", ""),
        message=body.get("message", ""),
        warning=body.get("type") == "Warning",
        time=parse_time(time) or 0.0,
    )
