"""Takes keys off a queue and works on each; what fails comes again later."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Generic, TypeVar

from llmtrain_operator import metrics
from llmtrain_operator.kube import KubeError, NamespaceEndsError
from llmtrain_operator.queue import WorkQueue

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class Worker(ABC, Generic[Key]):
    """Works on the keys of a queue; `noun` names what a key stands for in the log."""

    def __init__(self, queue: WorkQueue[Key], noun: str) -> None:
        self._queue = queue
        self._noun = noun
        self._turn = asyncio.Lock()

    @abstractmethod
    async def reconcile(self, key: Key) -> None:
        """Brings the object of a key a step further."""

    async def work(self) -> None:
        """Works on one key after the other, until cancelled."""
        while True:
            async with self._turn:  # One waits for work, so that one wakes when there is some.
                key = await self._queue.get()
            try:
                await self._work_on(key)
            finally:
                self._queue.done(key)
                metrics.QUEUE_DEPTH.labels(kind=self._noun).set(len(self._queue))

    async def _work_on(self, key: Key) -> None:
        about = {self._noun: str(key)}
        began = time.perf_counter()
        try:
            await self.reconcile(key)
        except NamespaceEndsError:
            log.info("its namespace is being deleted: left alone", extra=about)
            self._queue.forget(key)
        except KubeError as error:
            metrics.RECONCILE_ERRORS.inc()
            delay = self._queue.retry(key)
            log.warning("%s; trying again in %.1f s", error, delay, extra=about)
        except Exception:
            # A defect in one object's path must not stop the others; it is counted and told whole.
            metrics.RECONCILE_ERRORS.inc()
            delay = self._queue.retry(key)
            log.exception("failed; trying again in %.1f s", delay, extra=about)
        else:
            self._queue.succeeded(key)
        metrics.RECONCILE_SECONDS.observe(time.perf_counter() - began)
