"""Carries out what a plan says: writes the status, makes children, deletes; decides nothing.

Doing anything twice is harmless: names are deterministic, the status carries the version that it
was planned from, and deletes carry the UID of what is meant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from llmtrain_api.status import RunStatus
from llmtrain_operator.cache import Cache
from llmtrain_operator.children import Children, build_children
from llmtrain_operator.kube import (
    CONFIG_MAPS,
    JOBS,
    PODS,
    RUNS,
    SERVICES,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Kube,
    NamespaceEndsError,
    NotFoundError,
    Resource,
)
from llmtrain_operator.patching import merge_patch
from llmtrain_operator.plan import Start
from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import JobView, Object, PodView, Refusal, RunView, controller_uid
from llmtrain_operator.waiting import with_way_out

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 60.0


class _RefusedError(Exception):
    """A child cannot be made now, or ever."""

    def __init__(self, what: str, reason: str, message: str, *, terminal: bool = False) -> None:
        super().__init__(message)
        self.what = what
        self.reason = reason
        self.terminal = terminal


def _name_taken(what: str) -> _RefusedError:
    message = (
        f"{what} exists and is not this run's: if it is of an earlier run of this name it will be"
        " gone soon, else delete it or give this run another name"
    )
    return _RefusedError(what, Reason.NAME_TAKEN, message)


def as_written(status: RunStatus) -> Object:
    """Returns a status as it stands in the cluster: without what is empty or not known."""
    written: Object = status.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return written


@dataclass(frozen=True)
class Executor:
    """Acts on the cluster. `authority` returns the PEM that trainers check the endpoint by."""

    kube: Kube
    cache: Cache
    progress_url: str
    authority: Callable[[], str]
    now: Callable[[], float]

    async def write_status(self, run: RunView, status: RunStatus) -> bool:
        """Replaces the status of a run that has not changed since `run` was read.

        Returns:
            Whether it was written; False if the run has changed or is gone.
        """
        patch: Object = {
            "metadata": {"resourceVersion": str(run.version)},
            "status": merge_patch(run.status, as_written(status)),
        }
        namespace, name = run.key
        try:
            answer = await self.kube.patch(RUNS, namespace, name, patch, subresource="status")
        except ConflictError:
            return False  # The watch is about to tell of the newer version.
        except NotFoundError:
            self.cache.remove_run(run.key, run.uid)
            return False
        self.cache.set_run(answer)
        return True

    async def start(self, run: RunView, start: Start, earlier: Refusal | None) -> Refusal | None:
        """Makes the children of an attempt, the Job last.

        Returns:
            Why the API server does not take one of them, or None if all are there.
        """
        children = build_children(
            run,
            start.spec,
            start.attempt,
            image=start.image,
            progress_url=self.progress_url,
            ca=self.authority(),
            parents=start.parents,
            task=start.task,
        )
        try:
            await self._create_all(run, children)
        except _RefusedError as refused:
            tries = earlier.tries + 1 if earlier and earlier.attempt == start.attempt else 1
            delay = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(tries - 1, 10))
            return Refusal(
                attempt=start.attempt,
                what=refused.what,
                reason=refused.reason,
                message=str(refused),
                terminal=refused.terminal,
                retry_at=self.now() + delay,
                tries=tries,
            )
        return None

    async def _create_all(self, run: RunView, children: Children) -> None:
        first = [self._create_own(run, CONFIG_MAPS, children.config_map)]
        if children.service is not None:
            first.append(self._create_own(run, SERVICES, children.service))
        for outcome in await asyncio.gather(*first, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        job = await self._create_own(run, JOBS, children.job)
        if job is not None:
            self.cache.set_job(job)

    async def _create_own(self, run: RunView, resource: Resource, body: Object) -> Object | None:
        """Creates a child and returns it; None if it is there already and the run's own."""
        namespace, name = run.key.namespace, str(body["metadata"]["name"])
        what = f"{resource.kind} {name}"
        try:
            return await self.kube.create(resource, namespace, body)
        except AlreadyExistsError as error:
            if not await self._is_own(run, resource, name):
                raise _name_taken(what) from error
            return None
        except InvalidError as error:
            message = (
                f"the API server refuses {what}: {error}: correct workers, above all"
                " workers.podTemplate: delete this run and apply it again"
            )
            raise _RefusedError(what, Reason.INVALID_SPEC, message, terminal=True) from error
        except NamespaceEndsError:
            raise  # Nothing to tell: the run itself goes in a moment.
        except ForbiddenError as error:
            message = with_way_out(f"{what} cannot be made: {error}", str(error))
            raise _RefusedError(what, Reason.FORBIDDEN, message) from error

    async def _is_own(self, run: RunView, resource: Resource, name: str) -> bool:
        """Returns whether a child that exists is the run's own and stays."""
        if resource is JOBS:  # All Jobs of the run are in the cache, or will be in a moment.
            jobs = self.cache.jobs_of(run.key)
            return any(j.name == name and j.owner_uid == run.uid and not j.deleting for j in jobs)
        try:
            found = await self.kube.get(resource, run.key.namespace, name)
        except NotFoundError:
            return False  # It went this moment: try again.
        metadata = found["metadata"]
        return controller_uid(metadata) == run.uid and "deletionTimestamp" not in metadata

    async def delete_job(self, run: RunView, job: JobView) -> bool:
        """Deletes a Job of the run, with its pods.

        Returns:
            Whether it was there; else the watch missed its end, and the cache knows by now.
        """
        log.info("deleting Job %s", job.name, extra={"run": str(run.key)})
        there = await self.kube.delete(JOBS, job.namespace, job.name, uid=job.uid)
        if not there:
            self.cache.remove_job(job.uid)
        return there

    async def delete_config_map(self, run: RunView, name: str) -> None:
        """Deletes the ConfigMap of an attempt that is over, if it is the run's own."""
        namespace = run.key.namespace
        try:
            metadata = (await self.kube.get(CONFIG_MAPS, namespace, name))["metadata"]
        except NotFoundError:
            return
        if controller_uid(metadata) == run.uid:
            await self.kube.delete(CONFIG_MAPS, namespace, name, uid=metadata["uid"])

    async def kill_pod(self, run: RunView, pod: PodView) -> bool:
        """Removes a pod whose node does not answer any more.

        Returns:
            Whether it was there; else the watch missed its end, and the cache knows by now.
        """
        log.warning("removing pod %s of a dead node", pod.name, extra={"run": str(run.key)})
        there = await self.kube.delete(PODS, pod.namespace, pod.name, uid=pod.uid, grace_seconds=0)
        if not there:
            self.cache.remove_pod(pod.uid)
        return there
