"""The whole core of the operator over a fake cluster and a clock that the test moves."""

from __future__ import annotations

import asyncio
import copy
from typing import Any, cast

from cluster_fake import START, FakeKube

from llmtrain_api.progress import Report
from llmtrain_api.status import RunStatus
from llmtrain_operator.cache import Cache
from llmtrain_operator.execute import Executor
from llmtrain_operator.kube import RUNS, Kube
from llmtrain_operator.observe import Observer
from llmtrain_operator.pace import SOON_SECONDS, Pace
from llmtrain_operator.progress import ProgressBook
from llmtrain_operator.queue import WorkQueue
from llmtrain_operator.reconcile import Reconciler
from llmtrain_operator.recorder import Recorder
from llmtrain_operator.snapshot import Defaults, RunKey

Object = dict[str, Any]
SPEC: Object = {
    "stage": "SFT",
    "model": {"uri": "s3://models/tiny/"},
    "datasets": [{"uri": "s3://data/train.jsonl", "format": "Alpaca"}],
    "tuning": {"method": "LoRA"},
    "training": {"maxSteps": 20, "globalBatchSize": 4, "learningRate": 0.001},
    "output": {"uri": "s3://runs/one/"},
    "workers": {"nodes": 2},
}


def spec_with(**changes: Any) -> Object:
    """Returns the spec of a small run with top-level fields replaced or, for objects, merged."""
    spec = copy.deepcopy(SPEC)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(spec.get(name), dict)
        spec[name] = {**spec[name], **value} if both else value
    return spec


class World:
    """A cluster with one operator. `KEY` is the run that most tests are about."""

    KEY = RunKey("default", "one")

    def __init__(self) -> None:
        self.cache = Cache()
        self.kube = FakeKube(self.cache)
        self.start_operator()

    def start_operator(self) -> None:
        """Starts an operator that knows nothing but what is in the cache."""
        kube = cast("Kube", self.kube)
        self.queue: WorkQueue[RunKey] = WorkQueue(lambda: self.kube.now, lambda: 1.0)
        self.book = ProgressBook(self.queue.add)
        clock = self._now
        observer = Observer(kube, self.cache, self.book, Defaults("trainer:1"), clock)
        executor = Executor(kube, self.cache, "https://llmtrain/progress", lambda: "PEM", clock)
        pace = Pace(10.0, 10.0, clock)
        self.recorder = Recorder(kube, clock)
        self.reconciler = Reconciler(
            self.queue, self.cache, observer, executor, self.recorder, pace
        )

    def _now(self) -> float:
        return self.kube.now

    def apply(self, name: str = "one", **changes: Any) -> None:
        """Makes a run."""
        body = {"metadata": {"name": name}, "spec": spec_with(**changes)}
        self.kube.put(RUNS, "default", body)

    def set_spec(self, **changes: Any) -> None:
        """Changes the spec of the run, as a user would."""
        self.kube.change(RUNS, "default", self.KEY.name, {"spec": changes})

    async def settle(self, passes: int = 6) -> None:
        """Reconciles the run until there is nothing to do, nor when the pause of writes is over."""
        for _ in range(passes):
            await self.reconciler.reconcile(self.KEY)
        self.kube.now += SOON_SECONDS
        await self.reconciler.reconcile(self.KEY)
        await self._write_events()

    async def _write_events(self) -> None:
        writing = asyncio.create_task(self.recorder.work())
        for _ in range(20):
            await asyncio.sleep(0)
        writing.cancel()

    async def wait(self, seconds: float) -> None:
        """Lets time pass, then settles."""
        self.kube.now += seconds
        await self.settle()

    def report(self, **fields: Any) -> None:
        """Has the trainer report."""
        uid = self.cache.runs[self.KEY].uid
        report = Report.model_validate({"attempt": 1, "activity": "Training", **fields})
        self.book.put(self.KEY, uid, report, self.kube.now)

    @property
    def status(self) -> RunStatus:
        """The status of the run."""
        return RunStatus.model_validate(self.kube.status(self.KEY.name))

    def phase(self) -> str:
        """Returns the phase of the run."""
        return str(self.status.phase)

    def condition(self, type_: str) -> tuple[str, str]:
        """Returns the status and the reason of a condition."""
        return next((c.status, c.reason) for c in self.status.conditions if c.type == type_)

    def message(self, type_: str) -> str:
        """Returns the message of a condition."""
        return next(c.message for c in self.status.conditions if c.type == type_)

    def event_reasons(self) -> list[str]:
        """Returns the reasons of all Events, in the order in which they were written."""
        return [
            body["reason"]
            for (kind, _, _), body in self.kube.objects.items()
            if kind == "Event" and body["involvedObject"]["kind"] == "LLMTrainRun"
        ]


__all__ = ["SPEC", "START", "World", "spec_with"]
