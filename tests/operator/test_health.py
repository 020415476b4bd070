"""What the kubelet and Prometheus are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from llmtrain_operator import health
from llmtrain_operator.health import MAX_SILENCE_SECONDS, Health, health_app
from llmtrain_operator.metrics import RUNS
from llmtrain_operator.server import Server, listen


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
async def server(state: Health) -> AsyncIterator[Server]:
    made = await listen(health_app(state), 0, host="127.0.0.1")
    yield made
    await made.close()


async def ask(server: Server, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_it_is_ready_once_it_knows_all_runs(state: Health, server: Server) -> None:
    assert await ask(server, "/readyz") == (503, "the list of runs has not been read yet")
    state.synced = True
    assert await ask(server, "/readyz") == (200, "ok")


async def test_it_is_unhealthy_when_the_api_server_is_silent(
    state: Health, clock: Clock, server: Server
) -> None:
    assert await ask(server, "/healthz") == (200, "ok")
    clock.now += MAX_SILENCE_SECONDS + 1
    assert await ask(server, "/healthz") == (503, "nothing heard from the API server for 25 min")
    state.heard_from_api()
    assert await ask(server, "/healthz") == (200, "ok")


async def test_it_is_unhealthy_for_a_moment_after_the_event_loop_was_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(health, "MAX_LOOP_LAG_SECONDS", 0.05)
    state = Health()
    watching = asyncio.create_task(state.watch_loop())
    await asyncio.sleep(0.01)
    time.sleep(0.15)  # noqa: ASYNC251 - being stuck is what is tested.
    await asyncio.sleep(0.001)
    assert "the event loop was stuck" in state.problem()
    await asyncio.sleep(0.05)
    assert state.problem() == ""
    watching.cancel()


async def test_metrics_are_served(server: Server) -> None:
    RUNS.labels(phase="Running").set(3)
    status, text = await ask(server, "/metrics")
    assert status == 200
    assert 'llmtrain_runs{phase="Running"} 3.0' in text
    assert 'llmtrain_progress_posts_total{result="malformed"}' in text
    assert "process_resident_memory_bytes" in text
