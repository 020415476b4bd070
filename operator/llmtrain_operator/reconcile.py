"""Works on runs, one at a time per worker: look, decide, act."""

from __future__ import annotations

import logging

from llmtrain_api.status import RunStatus
from llmtrain_api.statussize import fitted
from llmtrain_operator import metrics
from llmtrain_operator.cache import Cache
from llmtrain_operator.changes import Urgency, tell, urgency
from llmtrain_operator.execute import Executor
from llmtrain_operator.kube import NamespaceEndsError
from llmtrain_operator.observe import Observer
from llmtrain_operator.pace import SOON_SECONDS, Pace
from llmtrain_operator.plan import Plan, Start, plan
from llmtrain_operator.queue import WorkQueue
from llmtrain_operator.recorder import Recorder
from llmtrain_operator.snapshot import RunKey, RunView, Snapshot
from llmtrain_operator.worker import Worker

log = logging.getLogger(__name__)

LULL_SECONDS = 2.0
"""Without a new run for so long, the operator is not busy with new runs."""
STALE_SECONDS = 0.5
"""After this long the watch has told of the version that was in the way; else, once more."""


class Reconciler(Worker[RunKey]):
    """Takes runs off the queue and brings each one a step further. Safe to repeat at any time."""

    def __init__(
        self,
        queue: WorkQueue[RunKey],
        cache: Cache,
        observer: Observer,
        executor: Executor,
        recorder: Recorder,
        pace: Pace,
    ) -> None:
        super().__init__(queue, "run")
        self._cache = cache
        self._observer = observer
        self._executor = executor
        self._recorder = recorder
        self._pace = pace

    async def reconcile(self, key: RunKey) -> None:
        """Brings a run a step further."""
        snapshot = await self._observer.observe(key)
        if snapshot is None:
            self._queue.forget(key)
            return
        await self._carry_out(snapshot, plan(snapshot))

    async def _carry_out(self, snapshot: Snapshot, todo: Plan) -> None:
        run, old = snapshot.run, snapshot.run.read_status()
        new = fitted(todo.status) if todo.status is not None else old
        how_soon = urgency(old, new)
        wait = self._pace.wait(run.uid, how_soon, busy=self._queue.had_first(LULL_SECONDS))
        if todo.delete_jobs or todo.kill_pods:
            wait = 0.0  # What goes must be in the status first: its UID tells what it left behind.
        if how_soon is not Urgency.NONE and wait <= 0:
            if not await self._executor.write_status(run, new):
                self._queue.add_after(run.key, STALE_SECONDS)
                return
            self._pace.wrote(run.uid)
            metrics.STATUS_WRITES.inc()
            for told in tell(old, new):
                self._recorder.add(run, told)
            self._wake_followers(run.key, old, new)
            if how_soon is Urgency.NOW and todo.start is None:
                self._queue.add(run.key)  # No event tells of our own write, and more may follow.
        elif how_soon is not Urgency.NONE:
            self._queue.add_after(run.key, wait)
        await self._delete(run, todo)
        if todo.start is not None:
            await self._start(snapshot, todo.start)
        self._forget_the_gone(run.key, new)
        if todo.look_again is not None:
            self._queue.add_after(run.key, todo.look_again)

    def _wake_followers(self, key: RunKey, old: RunStatus, new: RunStatus) -> None:
        """Has the runs looked at that start from this one, if it has come to another phase."""
        for follower in self._cache.followers_of(key) if old.phase != new.phase else ():
            self._queue.add(follower)

    async def _delete(self, run: RunView, todo: Plan) -> None:
        were_there = [await self._executor.delete_job(run, job) for job in todo.delete_jobs]
        for name in todo.delete_config_maps:
            await self._executor.delete_config_map(run, name)
        were_there += [await self._executor.kill_pod(run, pod) for pod in todo.kill_pods]
        if not all(were_there):
            self._queue.add(run.key)  # No event will tell of what is gone already.

    async def _start(self, snapshot: Snapshot, start: Start) -> None:
        run = snapshot.run
        log.info("starting attempt %d", start.attempt, extra={"run": str(run.key)})
        try:
            refusal = await self._executor.start(run, start, snapshot.refusal)
        except NamespaceEndsError:
            self._cache.remove_run(run.key, run.uid)  # What its children's end tells is no news.
            raise
        if refusal is None:
            self._observer.refusals.pop(run.uid, None)
            self._queue.add_after(run.key, SOON_SECONDS)  # To say that the Job is there.
            return
        log.warning("%s", refusal.message, extra={"run": str(run.key)})
        self._observer.refusals[run.uid] = refusal
        self._queue.add(run.key)  # The status has to say so.

    def _forget_the_gone(self, key: RunKey, status: RunStatus) -> None:
        """Drops pods that are gone, but for those whose last words are still to be read."""
        latest = status.attempts[-1] if status.attempts else None
        is_open = latest is not None and latest.outcome is None
        self._cache.drop_gone_pods(key, latest.job_uid if latest and is_open else None)
