"""The operator as one object: its parts, in the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import Any

from llmtrain_api.progress import Report
from llmtrain_api.status import Phase
from llmtrain_operator import metrics
from llmtrain_operator.auth import Authenticator, Caller
from llmtrain_operator.cache import Cache
from llmtrain_operator.execute import Executor
from llmtrain_operator.health import Health, health_app
from llmtrain_operator.kopf_bridge import Watch, build_registry
from llmtrain_operator.kube import TOKEN_REVIEWS, Kube, UnavailableError
from llmtrain_operator.observe import Observer
from llmtrain_operator.pace import Pace
from llmtrain_operator.progress import ProgressBook
from llmtrain_operator.progress_server import progress_app
from llmtrain_operator.publish import publish_authority
from llmtrain_operator.queue import WorkQueue
from llmtrain_operator.reconcile import Reconciler
from llmtrain_operator.recorder import Recorder
from llmtrain_operator.resync import keep_reading, read_everything
from llmtrain_operator.schedule_reconcile import ScheduleReconciler
from llmtrain_operator.schedule_snapshot import ScheduleKey
from llmtrain_operator.server import Server, listen
from llmtrain_operator.settings import Settings
from llmtrain_operator.snapshot import Defaults, Object, RunKey
from llmtrain_operator.tls import Authority, authority_from_folder, authority_in_memory

log = logging.getLogger(__name__)

START_TRIES = 30
COUNT_EVERY_SECONDS = 2.0
PUBLISH_AGAIN_SECONDS = 30.0
SCHEDULE_WORKERS = 4
"""Schedules that are worked on at the same time: of several that are due, none waits for long."""
OVER = (Phase.SUCCEEDED, Phase.FAILED, Phase.SUSPENDED)


class Operator:
    """All parts of the operator."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        self._cache = Cache()
        self._queue: WorkQueue[RunKey] = WorkQueue()
        self._schedule_queue: WorkQueue[ScheduleKey] = WorkQueue()
        self._health = Health()
        self._authority = _authority(settings)
        self._book = ProgressBook(self._queue.add)
        self._pace = Pace(
            settings.status_interval_seconds, settings.status_writes_per_second, time.monotonic
        )
        defaults = Defaults(settings.trainer_image, settings.restart_delay_seconds)
        self._observer = Observer(kube, self._cache, self._book, defaults, time.time)
        executor = Executor(
            kube,
            self._cache,
            settings.progress_url,
            lambda: self._authority.ca_pem,
            time.time,
        )
        self._recorder = Recorder(kube, time.time)
        self._reconciler = Reconciler(
            self._queue,
            self._cache,
            self._observer,
            executor,
            self._recorder,
            self._pace,
        )
        self._schedule_reconciler = ScheduleReconciler(
            self._schedule_queue, self._cache, kube, self._recorder, time.time, self._changed
        )
        self._tasks: list[asyncio.Task[Any]] = []
        self._new_authority = asyncio.Event()

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT.

        Raises:
            KubeError: The API server cannot be worked with from the start.
            Exception: A part broke.
        """
        servers = [await listen(health_app(self._health), self._settings.health_port)]
        self._found(await self._read_at_start())
        servers.append(await self._listen_for_progress())
        self._start_all()
        self._health.synced = True
        runs, schedules = len(self._cache.runs), len(self._cache.schedules)
        log.info("watching; %d runs and %d schedules known", runs, schedules)
        await self._watch(servers)

    async def _read_at_start(self) -> set[RunKey]:
        """Reads everything; waits a while for an API server that is only just starting."""
        for _ in range(START_TRIES):
            try:
                return await self._read()
            except UnavailableError as error:
                log.warning("waiting for the API server: %s", error)
                await asyncio.sleep(1)
        return await self._read()

    async def _read(self) -> set[RunKey]:
        keys = await read_everything(self._kube, self._cache, self._settings.watch_namespaces)
        self._health.heard_from_api()
        return keys

    def _found(self, keys: set[RunKey]) -> None:
        """Works on everything, and drops what is remembered of what is gone."""
        for key in keys:
            self._queue.add(key)
        for schedule in self._cache.schedules:
            self._schedule_queue.add(schedule)
        schedules = self._cache.schedules.values()
        self._schedule_reconciler.forget_all_but({schedule.uid for schedule in schedules})
        uids = {run.uid for run in self._cache.runs.values()}
        self._book.forget_all_but(uids)
        self._observer.forget_all_but(uids)
        self._pace.forget_all_but(uids)

    def _changed(self, key: RunKey | None) -> None:
        self._health.heard_from_api()
        if key is not None:
            run = self._cache.runs.get(key)
            # A new run before what is going on anyway: its first status makes its Job.
            self._queue.add(key, first=run is not None and not run.status.get("conditions"))
            for follower in self._cache.followers_of(key):  # It may have come, or gone.
                self._queue.add(follower)

    def _schedule_changed(self, key: ScheduleKey | None) -> None:
        self._health.heard_from_api()
        if key is not None:
            self._schedule_queue.add(key)

    def _accept(self, caller: Caller, report: Report) -> None:
        key = RunKey(caller.namespace, caller.name)
        self._book.put(key, caller.uid, report, time.time())

    async def _review(self, body: Object) -> Object:
        return await self._kube.create(TOKEN_REVIEWS, None, body)

    async def _listen_for_progress(self) -> Server:
        app = progress_app(Authenticator(self._review, self._cache), self._accept)
        return await listen(app, self._settings.progress_port, tls=self._authority.ssl_context())

    def _start_all(self) -> None:
        """Starts all parts that go on for ever: if one ends, something broke."""
        forever = [
            self._health.watch_loop(),
            self._authority.keep_fresh(self._new_authority.set),
            self._publish(),
            keep_reading(self._read, self._found),
            self._recorder.work(),
            self._count(),
            *(self._reconciler.work() for _ in range(self._settings.workers)),
            *(self._schedule_reconciler.work() for _ in range(SCHEDULE_WORKERS)),
        ]
        self._tasks = [asyncio.create_task(part) for part in forever]

    async def _publish(self) -> None:
        """Tells running trainers of the authority: at start, and when there is a new one."""
        while True:
            pem = self._authority.ca_pem
            if not await publish_authority(self._kube, self._cache, pem):
                await asyncio.sleep(PUBLISH_AGAIN_SECONDS)
                continue
            await self._new_authority.wait()
            self._new_authority.clear()

    async def _count(self) -> None:
        """Counts runs and schedules, for Prometheus and for the pace of status writes."""
        while True:
            for ready, number in self._cache.ready_schedules().items():
                metrics.SCHEDULES.labels(ready=ready).set(number)
            phases = self._cache.phases()
            for phase in Phase:
                metrics.RUNS.labels(phase=phase.value).set(phases[phase.value])
            self._pace.live_runs = sum(phases.values()) - sum(phases[phase] for phase in OVER)
            await asyncio.sleep(COUNT_EVERY_SECONDS)

    async def _watch(self, servers: list[Server]) -> None:
        """Watches until a signal comes or a part breaks, then ends all parts in order."""
        registry = build_registry(
            self._cache, self._changed, self._schedule_changed, self._kube.configuration
        )
        watch, stop = Watch(registry, self._settings.watch_namespaces), asyncio.Event()

        def take_signals() -> None:
            # kopf takes them too, and would wait for the connections of our servers to end.
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)

        stopped = asyncio.create_task(stop.wait())
        watching = asyncio.create_task(watch.run(take_signals))
        parts = [stopped, watching, *self._tasks]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        self._health.synced = False
        log.info("stopping")
        await asyncio.gather(*(server.close() for server in servers))
        await _cancel([stopped, *self._tasks])
        watch.stop()
        await asyncio.wait([watching])
        for part in [*done, watching]:
            part.result()  # Raises what broke it.


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _authority(settings: Settings) -> Authority:
    if settings.tls_folder is not None:
        return authority_from_folder(settings.tls_folder)
    host = settings.service_host
    return authority_in_memory([host, f"{host}.cluster.local", "localhost"])
