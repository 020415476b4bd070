"""A schedule over a fake cluster and a clock that the test moves; the test plays the runs."""

from __future__ import annotations

import asyncio
import copy
from datetime import datetime
from typing import Any, cast

from cluster_fake import FakeKube
from world import SPEC

from llmtrain_api.schedule import ScheduleStatus
from llmtrain_operator.cache import Cache
from llmtrain_operator.kube import RUNS, SCHEDULES, Kube
from llmtrain_operator.queue import WorkQueue
from llmtrain_operator.recorder import Recorder
from llmtrain_operator.resync import read_everything
from llmtrain_operator.schedule_reconcile import ScheduleReconciler
from llmtrain_operator.schedule_snapshot import ScheduleKey
from llmtrain_operator.snapshot import RunKey, format_time

Object = dict[str, Any]
BEGIN = datetime.fromisoformat("2026-11-21T12:00:30Z").timestamp()
"""Half a minute past noon on a Saturday."""
URI = "s3://runs/{schedule}/{timestamp}/"
SCHEDULE: Object = {
    "schedule": "* * * * *",
    "runTemplate": {"spec": {**SPEC, "output": {"uri": URI}}},
}


def at(time: str) -> float:
    """Returns a time of the day on which the tests begin, such as `12:01:00`."""
    return datetime.fromisoformat(f"2026-11-21T{time}Z").timestamp()


def name_at(time: str) -> str:
    """Returns the name of the run for a time of that day."""
    return f"tick-{int(at(time) // 60)}"


class Clockwork:
    """A cluster with an operator that serves the schedule `tick`, which goes off each minute."""

    KEY = ScheduleKey("default", "tick")

    def __init__(self) -> None:
        self.kube = FakeKube(Cache())
        self.kube.now = BEGIN
        self.told: list[RunKey | None] = []
        self._start()

    def _start(self) -> None:
        kube, clock = cast("Kube", self.kube), lambda: self.kube.now
        self.queue: WorkQueue[ScheduleKey] = WorkQueue(clock, lambda: 1.0)
        self.recorder = Recorder(kube, clock)
        self.reconciler = ScheduleReconciler(
            self.queue, self.kube.cache, kube, self.recorder, clock, self.told.append
        )

    async def restart_operator(self) -> None:
        """Starts an operator that knows nothing but what it reads from the cluster."""
        self.kube.cache = Cache()
        await read_everything(cast("Kube", self.kube), self.kube.cache, ())
        self._start()

    def apply(self, **changes: Any) -> None:
        """Makes the schedule."""
        body = {"metadata": {"name": self.KEY.name}, "spec": copy.deepcopy(SCHEDULE) | changes}
        self.kube.put(SCHEDULES, "default", body)

    def set_spec(self, **changes: Any) -> None:
        """Changes the spec of the schedule, as a user would."""
        self.kube.change(SCHEDULES, "default", self.KEY.name, {"spec": changes})

    async def settle(self) -> None:
        """Reconciles until there is nothing to do."""
        for _ in range(3):
            await self.reconciler.reconcile(self.KEY)

    async def until(self, time: str) -> None:
        """Lets time pass, with a look every few seconds."""
        while self.kube.now < at(time):
            self.kube.now = min(self.kube.now + 5, at(time))
            await self.reconciler.reconcile(self.KEY)
        await self.settle()

    async def jump(self, time: str) -> None:
        """Has the clock show a time; until then the operator did not look."""
        self.kube.now = at(time)
        await self.settle()

    def end(self, run: str, phase: str = "Succeeded") -> None:
        """Has a run end."""
        status = {
            "phase": phase,
            "completionTime": format_time(self.kube.now),
            "conditions": [{"type": "Finished", "status": "True"}],
        }
        self.kube.change(RUNS, "default", run, {"status": status})

    @property
    def runs(self) -> list[str]:
        """The names of the runs that are there."""
        return self.kube.names("LLMTrainRun")

    @property
    def created(self) -> list[str]:
        """The names of all runs that were made, in that order."""
        made = [write.split() for write in self.kube.writes]
        return [name for verb, kind, name in made if (verb, kind) == ("create", "LLMTrainRun")]

    def run(self, name: str) -> Object:
        """Returns a run as it is stored."""
        return self.kube.objects["LLMTrainRun", "default", name]

    @property
    def status(self) -> ScheduleStatus:
        """The status of the schedule."""
        body = self.kube.objects["LLMTrainSchedule", "default", self.KEY.name]
        return ScheduleStatus.model_validate(body.get("status", {}))

    def condition(self, type_: str) -> tuple[str, str]:
        """Returns the status and the reason of a condition."""
        return next((c.status, c.reason) for c in self.status.conditions if c.type == type_)

    def message(self) -> str:
        """Returns the message of `Ready`."""
        return next(c.message for c in self.status.conditions if c.type == "Ready")

    def skipped(self) -> list[tuple[str, str]]:
        """Returns the skipped times of the day and why, newest first."""
        return [(one.time[11:19], one.reason) for one in self.status.skipped]

    async def events(self) -> list[str]:
        """Returns the reasons of the Events on the schedule, in the order of their writing."""
        writing = asyncio.create_task(self.recorder.work())
        for _ in range(50):
            await asyncio.sleep(0)
        writing.cancel()
        return [
            body["reason"]
            for (kind, _, _), body in self.kube.objects.items()
            if kind == "Event" and body["involvedObject"]["kind"] == "LLMTrainSchedule"
        ]
