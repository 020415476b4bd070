"""The only module that knows kopf: it watches, and hands each event to the cache and the queue.

kopf's higher-level handlers write annotations and finalizers onto objects; `on.event` costs nothing
there. Its exceptions are dropped, so the handlers only take up what they are given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kopf
from kubernetes.aio.client.configuration import Configuration

from llmtrain_api import GROUP, VERSION
from llmtrain_api.layout import LABEL_RUN
from llmtrain_operator.cache import Cache
from llmtrain_operator.schedule_snapshot import ScheduleKey, schedule_of
from llmtrain_operator.snapshot import Object, RunKey

Changed = Callable[[RunKey | None], None]
"""Told of the run that an event is about."""
ScheduleChanged = Callable[[ScheduleKey | None], None]
"""Told of the schedule that an event is about."""


class _NullDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of objects: nothing here looks at what changed in one."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


def on_run_event(cache: Cache, deleted: bool, body: Object) -> RunKey | None:
    """Takes up an event of a run; returns the run."""
    if not deleted:
        return cache.set_run(body)
    metadata = body["metadata"]
    return cache.remove_run(RunKey(metadata["namespace"], metadata["name"]), metadata["uid"])


def on_job_event(cache: Cache, deleted: bool, body: Object) -> RunKey | None:
    """Takes up an event of a Job; returns its run."""
    return cache.remove_job(body["metadata"]["uid"]) if deleted else cache.set_job(body)


def on_pod_event(cache: Cache, deleted: bool, body: Object) -> RunKey | None:
    """Takes up an event of a pod; returns its run."""
    if not deleted:
        return cache.set_pod(body)
    cache.set_pod(body)  # The last words may come with the deletion only.
    return cache.remove_pod(body["metadata"]["uid"])


def on_schedule_event(cache: Cache, deleted: bool, body: Object) -> ScheduleKey | None:
    """Takes up an event of a schedule; returns the schedule."""
    if not deleted:
        return cache.set_schedule(body)
    metadata = body["metadata"]
    key = ScheduleKey(metadata["namespace"], metadata["name"])
    return cache.remove_schedule(key, metadata["uid"])


def build_registry(
    cache: Cache,
    changed: Changed,
    schedule_changed: ScheduleChanged,
    configuration: Configuration,
) -> kopf.OperatorRegistry:
    """Returns the handlers: each hands an event over and tells of what it is about."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection(configuration)

    @kopf.on.event(GROUP, VERSION, "llmtrainruns", registry=registry)
    async def on_run(event: kopf.RawEvent, **_: Any) -> None:
        body = dict(event["object"])
        changed(on_run_event(cache, event["type"] == "DELETED", body))
        schedule_changed(schedule_of(body))

    @kopf.on.event(GROUP, VERSION, "llmtrainschedules", registry=registry)
    async def on_schedule(event: kopf.RawEvent, **_: Any) -> None:
        body = dict(event["object"])
        schedule_changed(on_schedule_event(cache, event["type"] == "DELETED", body))

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:
        changed(on_job_event(cache, event["type"] == "DELETED", dict(event["object"])))

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        changed(on_pod_event(cache, event["type"] == "DELETED", dict(event["object"])))

    return registry


def build_settings() -> kopf.OperatorSettings:
    """Returns kopf's settings: watch what is ours, write nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # No watch of CRDs and namespaces, so no right to it.
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = _NullDiffBase()
    settings.watching.label_selectors["batch", "v1", "jobs"] = LABEL_RUN
    settings.watching.label_selectors["", "v1", "pods"] = LABEL_RUN
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.queueing.idle_timeout = 1.0  # An idle object's task and body go soon.
    settings.process.ultimate_exiting_timeout = 20
    return settings


async def connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """Returns how to reach the API server, with the token as it is now."""
    authorization = await configuration.get_api_key_with_prefix("BearerToken")
    scheme, _, token = (authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme.capitalize() or None,
        token=token or None,
    )


class Watch:
    """kopf's operator, as something that runs until it is told to stop."""

    def __init__(self, registry: kopf.OperatorRegistry, namespaces: Sequence[str]) -> None:
        self._registry = registry
        self._namespaces = list(namespaces)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Asks the watch to end."""
        self._stop.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Watches until `stop`; calls `ready` once kopf has installed its signal handlers.

        Raises:
            Exception: The watch broke; a restart of the process heals it.
        """
        # kopf waits for every task that began after it did: servers and workers are to start first.
        before = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=build_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )
        ready()
        await kopf.run_tasks(tasks, ignored=before)
