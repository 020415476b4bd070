"""Works on schedules: looks at one, decides, and acts, in an order that any crash may interrupt.

First the runs that a new one replaces are deleted, then the new one is created, then the status
tells of it, then what is beyond the history limits goes. Whatever was not done is decided anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from llmtrain_api.errors import ConfigError
from llmtrain_api.schedule import ScheduleSpec, ScheduleStatus
from llmtrain_operator import metrics
from llmtrain_operator.cache import Cache
from llmtrain_operator.changes import Told
from llmtrain_operator.kube import (
    RUNS,
    SCHEDULES,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Kube,
    NamespaceEndsError,
    NotFoundError,
)
from llmtrain_operator.patching import merge_patch
from llmtrain_operator.queue import WorkQueue
from llmtrain_operator.reasons import EventReason, ScheduleReason
from llmtrain_operator.recorder import Recorder
from llmtrain_operator.schedule_acceptance import accept_schedule
from llmtrain_operator.schedule_children import build_run
from llmtrain_operator.schedule_plan import NewRun, SchedulePlan, plan_schedule
from llmtrain_operator.schedule_snapshot import (
    RunRefusal,
    ScheduleKey,
    ScheduleSnapshot,
    ScheduleView,
)
from llmtrain_operator.snapshot import Object, RunKey, RunView, format_time
from llmtrain_operator.worker import Worker

log = logging.getLogger(__name__)

STALE_SECONDS = 0.5
"""After this long the watch has told of the version that was in the way; else, once more."""
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0


class ScheduleReconciler(Worker[ScheduleKey]):
    """Takes schedules off the queue and brings each one up to date. Safe to repeat at any time.

    `now` is the time in seconds since 1970; `run_made` is told of each run that was made, since its
    event from the watch is no news to the cache.
    """

    def __init__(
        self,
        queue: WorkQueue[ScheduleKey],
        cache: Cache,
        kube: Kube,
        recorder: Recorder,
        now: Callable[[], float],
        run_made: Callable[[RunKey | None], None],
    ) -> None:
        super().__init__(queue, "schedule")
        self._run_made = run_made
        self._cache = cache
        self._kube = kube
        self._recorder = recorder
        self._now = now
        self._accepted: dict[str, tuple[int, ScheduleSpec | None, str]] = {}
        self._refusals: dict[str, RunRefusal] = {}

    def forget_all_but(self, uids: set[str]) -> None:
        """Drops what is remembered of schedules that are gone."""
        for memory in (self._accepted, self._refusals):
            for uid in memory.keys() - uids:
                del memory[uid]

    async def reconcile(self, key: ScheduleKey) -> None:
        """Brings a schedule up to date."""
        schedule = self._cache.schedules.get(key)
        if schedule is None:
            self._queue.forget(key)
            return
        snapshot = self._observe(schedule)
        await self._carry_out(snapshot, plan_schedule(snapshot))

    def _observe(self, schedule: ScheduleView) -> ScheduleSnapshot:
        spec, refusal_of_spec = self._accept(schedule)
        return ScheduleSnapshot(
            schedule=schedule,
            spec=spec,
            refusal_of_spec=refusal_of_spec,
            now=self._now(),
            runs=self._cache.runs_of_schedule(schedule.uid),
            refusal=self._refusals.get(schedule.uid),
        )

    def _accept(self, schedule: ScheduleView) -> tuple[ScheduleSpec | None, str]:
        known = self._accepted.get(schedule.uid)
        if known is not None and known[0] == schedule.generation:
            return known[1], known[2]
        spec, refusal = None, ""
        try:
            spec = accept_schedule(schedule.spec)
        except ConfigError as error:
            refusal = str(error)
        self._accepted[schedule.uid] = (schedule.generation, spec, refusal)
        return spec, refusal

    async def _carry_out(self, snapshot: ScheduleSnapshot, todo: SchedulePlan) -> None:
        schedule = snapshot.schedule
        for run in todo.replace:
            await self._delete(run)
            message = f"Run {run.key.name} is deleted: the next one takes its place."
            self._tell(schedule, EventReason.RUN_REPLACED, message, about=run.key.name)
        if todo.create is not None and not await self._create(snapshot, todo.create):
            return
        if todo.status is not None and not await self._write(schedule, todo.status):
            self._queue.add_after(schedule.key, STALE_SECONDS)
            return
        for run in todo.prune:
            await self._delete(run)
        if todo.look_again is not None:
            self._queue.add_after(schedule.key, todo.look_again)

    async def _create(self, snapshot: ScheduleSnapshot, new: NewRun) -> bool:
        """Makes a run; returns whether it is there. If not, the schedule is looked at again."""
        schedule = snapshot.schedule
        try:
            body = build_run(schedule, new.name, new.time)
            made = await self._kube.create(RUNS, schedule.key.namespace, body)
        except AlreadyExistsError:
            return self._found(snapshot, new)
        except NamespaceEndsError:
            raise  # Nothing to tell: the schedule itself goes in a moment.
        except (ForbiddenError, InvalidError) as error:
            terminal = isinstance(error, InvalidError)
            self._refuse(snapshot, new, f"run {new.name} cannot be made: {error}", terminal)
            return False
        self._run_made(self._cache.set_run(made))
        self._refusals.pop(schedule.uid, None)
        metrics.SCHEDULED_RUNS.labels(result="created").inc()
        metrics.SCHEDULE_DELAY_SECONDS.observe(max(0.0, snapshot.now - new.due))
        log.info("made run %s", new.name, extra={"schedule": str(schedule.key)})
        message = f"Run {new.name} is made for {format_time(new.time)}."
        self._tell(schedule, EventReason.RUN_CREATED, message, about=new.name)
        return True

    def _found(self, snapshot: ScheduleSnapshot, new: NewRun) -> bool:
        """Returns whether a run that was there already is the schedule's own."""
        schedule = snapshot.schedule
        known = self._cache.runs.get(RunKey(schedule.key.namespace, new.name))
        if known is None:  # The watch is about to tell of it, or of its end.
            self._queue.add_after(schedule.key, STALE_SECONDS)
            return False
        if known.owner_uid == schedule.uid:
            return True
        message = (
            f"run {new.name} exists and is not this schedule's: delete it, or give this schedule"
            " another name"
        )
        self._refuse(snapshot, new, message, terminal=False)
        return False

    def _refuse(
        self, snapshot: ScheduleSnapshot, new: NewRun, message: str, terminal: bool
    ) -> None:
        schedule, earlier = snapshot.schedule, self._refusals.get(snapshot.schedule.uid)
        tries = earlier.tries + 1 if earlier is not None and earlier.time == new.time else 1
        delay = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(tries - 1, 10))
        self._refusals[schedule.uid] = RunRefusal(
            time=new.time,
            generation=schedule.generation,
            message=message,
            terminal=terminal,
            retry_at=snapshot.now + delay,
            tries=tries,
        )
        log.warning("%s", message, extra={"schedule": str(schedule.key)})
        if tries == 1:
            metrics.SCHEDULED_RUNS.labels(result="refused").inc()
        self._queue.add(schedule.key)  # The status has to say so.

    async def _write(self, schedule: ScheduleView, status: ScheduleStatus) -> bool:
        """Replaces the status, if it is another one; returns False if the schedule has changed."""
        old = schedule.read_status()
        if status == old:
            return True
        written = status.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        patch: Object = {
            "metadata": {"resourceVersion": str(schedule.version)},
            "status": merge_patch(schedule.status, written),
        }
        namespace, name = schedule.key
        try:
            answer = await self._kube.patch(SCHEDULES, namespace, name, patch, subresource="status")
        except ConflictError:
            return False  # The watch is about to tell of the newer version.
        except NotFoundError:
            self._cache.remove_schedule(schedule.key, schedule.uid)
            return False
        self._cache.set_schedule(answer)
        metrics.STATUS_WRITES.inc()
        self._tell_of_skipped(schedule, old, status)
        return True

    def _tell_of_skipped(
        self, schedule: ScheduleView, old: ScheduleStatus, new: ScheduleStatus
    ) -> None:
        known = {(one.time, one.reason) for one in old.skipped}
        for one in new.skipped:
            if (one.time, one.reason) in known:
                continue
            refused = one.reason == ScheduleReason.REFUSED
            reason = EventReason.RUN_REFUSED if refused else EventReason.TIME_SKIPPED
            if not refused:
                metrics.SCHEDULED_RUNS.labels(result="skipped").inc()
            message = f"{one.time}: {one.message}."
            warning = one.reason != ScheduleReason.RUN_ACTIVE
            self._tell(schedule, reason, message, about=one.reason, warning=warning)

    async def _delete(self, run: RunView) -> None:
        """Deletes a run, if it is still the same; the watch tells when it is gone."""
        namespace, name = run.key
        log.info("deleting run %s", name, extra={"run": str(run.key)})
        if not await self._kube.delete(RUNS, namespace, name, uid=run.uid):
            self._cache.remove_run(run.key, run.uid)

    def _tell(
        self,
        schedule: ScheduleView,
        reason: EventReason,
        message: str,
        *,
        about: str,
        warning: bool = False,
    ) -> None:
        self._recorder.add(schedule, Told(reason, message, warning=warning, about=about))
