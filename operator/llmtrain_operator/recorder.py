"""Writes Kubernetes Events about runs and schedules, few and bounded.

There is one object for each run, reason and attempt.

An Event that comes again is counted up, at most every 20 seconds. Events are a courtesy: they are
written one after the other beside the work on runs, and one that cannot be written is logged and
dropped, so that they never hold up a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from llmtrain_api import API_VERSION
from llmtrain_operator.changes import Told
from llmtrain_operator.kube import (
    EVENTS,
    AlreadyExistsError,
    Kube,
    KubeError,
    NamespaceEndsError,
    NotFoundError,
)
from llmtrain_operator.schedule_snapshot import ScheduleView
from llmtrain_operator.snapshot import Object, RunView, format_time

log = logging.getLogger(__name__)

COMPONENT = "llmtrain-operator"
QUIET_SECONDS = 20.0
MAX_REMEMBERED = 4096
MAX_WAITING = 4096
MAX_MESSAGE = 1024  # The API server's own bound.


Subject = RunView | ScheduleView
"""What an Event is about."""


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
        self._waiting: asyncio.Queue[tuple[Subject, Told]] = asyncio.Queue(MAX_WAITING)

    def add(self, subject: Subject, told: Told) -> None:
        """Has one Event written soon."""
        try:
            self._waiting.put_nowait((subject, told))
        except asyncio.QueueFull:
            log.warning("Event %s is dropped: too many wait", told.reason, extra=about(subject))

    async def work(self) -> None:
        """Writes the Events that were added, until cancelled."""
        while True:
            await self.write(*await self._waiting.get())

    async def write(self, subject: Subject, told: Told) -> None:
        """Writes one Event, or counts up the one that is there."""
        now, name = self._now(), event_name(subject, told)
        known = self._written.get(name)
        if known is not None and now < known.at + QUIET_SECONDS:
            return
        count = known.count + 1 if known else 1
        try:
            if known is None or not await self._count_up(subject, told, name, count, now):
                count = await self._create(subject, told, name, now)
        except NamespaceEndsError:
            return  # With it go all its Events.
        except KubeError as error:
            log.warning("Event %s was not written: %s", told.reason, error, extra=about(subject))
            return
        self._written.pop(name, None)
        self._written[name] = _Written(count, now)
        if len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)

    async def _create(self, subject: Subject, told: Told, name: str, now: float) -> int:
        try:
            await self._kube.create(
                EVENTS, subject.key.namespace, build_event(subject, told, name, now)
            )
        except AlreadyExistsError:  # Written before this process began.
            await self._count_up(subject, told, name, 2, now)
            return 2
        return 1

    async def _count_up(
        self, subject: Subject, told: Told, name: str, count: int, now: float
    ) -> bool:
        """Returns whether the Event is still there: the API server keeps them for an hour."""
        body: Object = {
            "count": count,
            "lastTimestamp": format_time(now),
            "message": told.message[:MAX_MESSAGE],
        }
        try:
            await self._kube.patch(EVENTS, subject.key.namespace, name, body)
        except NotFoundError:
            return False
        return True


def about(subject: Subject) -> dict[str, str]:
    """Returns what names a run or a schedule in a line of the log."""
    return {subject.kind.removeprefix("LLMTrain").lower(): str(subject.key)}


def event_name(subject: Subject, told: Told) -> str:
    """Returns the name of an Event: the same for the same object, reason and `told.about`."""
    text = "/".join((subject.uid, told.reason, told.about))
    return f"{subject.key.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def build_event(subject: Subject, told: Told, name: str, now: float) -> Object:
    """Returns a new Event."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": subject.key.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": subject.kind,
            "namespace": subject.key.namespace,
            "name": subject.key.name,
            "uid": subject.uid,
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
