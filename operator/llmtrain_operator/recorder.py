"""Writes Kubernetes Events about runs, few and bounded: one object per run, reason and attempt.

An Event that comes again is counted up, at most once a minute. Events are a courtesy: one that
cannot be written is logged and dropped, so that it never holds up a run.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from llmtrain_operator.changes import Told
from llmtrain_operator.kube import EVENTS, RUNS, AlreadyExistsError, Kube, KubeError
from llmtrain_operator.snapshot import Object, RunView, format_time

log = logging.getLogger(__name__)

COMPONENT = "llmtrain-operator"
QUIET_SECONDS = 60.0
MAX_REMEMBERED = 4096
MAX_MESSAGE = 1024  # The API server's own bound.


@dataclass(frozen=True)
class _Written:
    count: int
    at: float


class Recorder:
    """Writes Events. `now` is the time in seconds since 1970."""

    def __init__(self, kube: Kube, now: Callable[[], float]) -> None:
        self._kube = kube
        self._now = now
        self._written: OrderedDict[str, _Written] = OrderedDict()

    async def record(self, run: RunView, told: Told) -> None:
        """Writes one Event about a run, or counts up the one that is there."""
        now, name = self._now(), event_name(run, told)
        known = self._written.get(name)
        if known is not None and now < known.at + QUIET_SECONDS:
            return
        count = known.count + 1 if known else 1
        try:
            if known is None:
                count = await self._create(run, told, name, now)
            else:
                await self._count_up(run, told, name, count, now)
        except KubeError as error:
            log.warning("Event %s of run %s was not written: %s", told.reason, run.key, error)
            return
        self._written.pop(name, None)
        self._written[name] = _Written(count, now)
        if len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)

    async def _create(self, run: RunView, told: Told, name: str, now: float) -> int:
        try:
            await self._kube.create(EVENTS, run.key.namespace, build_event(run, told, name, now))
        except AlreadyExistsError:  # Written before this process began.
            await self._count_up(run, told, name, 2, now)
            return 2
        return 1

    async def _count_up(self, run: RunView, told: Told, name: str, count: int, now: float) -> None:
        body: Object = {
            "count": count,
            "lastTimestamp": format_time(now),
            "message": told.message[:MAX_MESSAGE],
        }
        await self._kube.patch(EVENTS, run.key.namespace, name, body)


def event_name(run: RunView, told: Told) -> str:
    """Returns the name of an Event: the same for the same run, reason and subject."""
    text = "/".join((run.uid, told.reason, told.about))
    return f"{run.key.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def build_event(run: RunView, told: Told, name: str, now: float) -> Object:
    """Returns a new Event about a run."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": run.key.namespace},
        "involvedObject": {
            "apiVersion": RUNS.api_version,
            "kind": RUNS.kind,
            "namespace": run.key.namespace,
            "name": run.key.name,
            "uid": run.uid,
        },
        "type": "Warning" if told.warning else "Normal",
        "reason": told.reason,
        "message": told.message[:MAX_MESSAGE],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": format_time(now),
        "lastTimestamp": format_time(now),
        "count": 1,
    }
