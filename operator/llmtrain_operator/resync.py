"""Reads everything anew: before the operator acts, and every 10 minutes for what the watch missed.

A watch that had to start over never tells what was deleted meanwhile (kopf lists again and does
not compare), so a list is held against the cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from llmtrain_api.layout import LABEL_RUN
from llmtrain_operator.cache import Cache
from llmtrain_operator.kube import JOBS, PODS, RUNS, SCHEDULES, Kube, KubeError, Resource
from llmtrain_operator.snapshot import Object, RunKey

log = logging.getLogger(__name__)

EVERY_SECONDS = 600.0


async def read_everything(kube: Kube, cache: Cache, namespaces: Sequence[str]) -> set[RunKey]:
    """Brings the cache up to date by lists; returns all runs, those that are gone included.

    The schedules are in the cache afterwards.

    `namespaces` are those that are served; none for all.

    Raises:
        NotFoundError: A CRD is not installed.
        KubeError: The API server does not answer, or refuses.
    """
    runs, version = await _list(kube.list_all, RUNS, namespaces, "")
    jobs, jobs_version = await _list(kube.list_all, JOBS, namespaces, LABEL_RUN)
    pods, pods_version = await _list(kube.list_all, PODS, namespaces, LABEL_RUN)
    for body in runs:
        cache.set_run(body)
    for body in jobs:
        cache.set_job(body)
    for body in pods:
        cache.set_pod(body)
    schedules, schedules_version = await _list(kube.list_all, SCHEDULES, namespaces, "")
    for body in schedules:
        cache.set_schedule(body)
    cache.remove_schedules_not_in(_uids(schedules), schedules_version)
    gone = cache.remove_what_is_not_in(
        _uids(runs), _uids(jobs), _uids(pods), min(version, jobs_version, pods_version)
    )
    return gone | cache.runs.keys()


async def keep_reading(
    read: Callable[[], Awaitable[set[RunKey]]],
    found: Callable[[set[RunKey]], None],
    every_seconds: float = EVERY_SECONDS,
) -> None:
    """Reads everything again and again, until cancelled; one that fails is logged."""
    while True:
        await asyncio.sleep(every_seconds)
        try:
            found(await read())
        except KubeError as error:
            log.warning("the lists could not be read, the watch goes on: %s", error)


async def _list(
    read: Callable[..., Awaitable[tuple[list[Object], int]]],
    resource: Resource,
    namespaces: Sequence[str],
    label_selector: str,
) -> tuple[list[Object], int]:
    """Returns the objects of all served namespaces and the oldest version of their lists."""
    served: Sequence[str | None] = namespaces or [None]
    lists = [await read(resource, namespace, label_selector=label_selector) for namespace in served]
    objects = [body for items, _ in lists for body in items]
    return objects, min(version for _, version in lists)


def _uids(objects: Sequence[Object]) -> set[str]:
    return {body["metadata"]["uid"] for body in objects}
