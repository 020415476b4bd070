"""`/healthz`, `/readyz` and `/metrics`, in plain HTTP on a port of their own.

Healthy means that the event loop turns and that the operator heard from the API server not long
ago; ready means that it knows all runs. A loop that is stuck answers nothing, which the kubelet's
own timeout notices.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

MAX_LOOP_LAG_SECONDS = 5.0
MAX_SILENCE_SECONDS = 25 * 60.0
"""The operator lists everything every 10 minutes: two rounds may fail before it is restarted."""
TICK_SECONDS = 1.0


class Health:
    """What the rest of the operator says about itself, and what follows from it.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last_heard = now()
        self._lag = 0.0
        self.synced = False
        """Set once all runs and their children are in the cache."""

    def heard_from_api(self) -> None:
        """Notes that a watch event came or a list was read."""
        self._last_heard = self._now()

    def problem(self) -> str:
        """Returns why the operator should be restarted, or nothing."""
        if self._lag > MAX_LOOP_LAG_SECONDS:
            return f"the event loop was stuck for {self._lag:.0f} s"
        silence = self._now() - self._last_heard
        if silence > MAX_SILENCE_SECONDS:
            return f"nothing heard from the API server for {silence / 60:.0f} min"
        return ""

    async def watch_loop(self) -> None:
        """Measures how late the event loop is, until cancelled."""
        while True:
            due = self._now() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._lag = self._now() - due


def health_app(health: Health) -> web.Application:
    """Returns the application that the kubelet and Prometheus ask."""

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        if health.synced:
            return web.Response(text="ok")
        return web.Response(text="the list of runs has not been read yet", status=503)

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", make_aiohttp_handler()),
        ]
    )
    return app
