"""Reading everything anew, and telling running trainers of a new authority."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from cluster_fake import FakeKube
from world import SPEC

from llmtrain_operator.cache import Cache
from llmtrain_operator.kube import CONFIG_MAPS, JOBS, RUNS, Kube, UnavailableError
from llmtrain_operator.publish import live_attempts, publish_authority
from llmtrain_operator.resync import keep_reading, read_everything
from llmtrain_operator.snapshot import RunKey

A, B = RunKey("default", "a"), RunKey("other", "b")
LABELS = {"llmtrain.dev/run": "a", "llmtrain.dev/attempt": "1"}


@pytest.fixture
def kube() -> FakeKube:
    """A cluster with a run in each of two namespaces, and a Job."""
    fake = FakeKube(Cache())
    for key in (A, B):
        fake.put(RUNS, key.namespace, {"metadata": {"name": key.name}, "spec": SPEC})
    fake.put(JOBS, "default", {"metadata": {"name": "a-a1", "labels": LABELS}})
    fake.put(JOBS, "default", {"metadata": {"name": "foreign"}})
    return fake


async def read(kube: FakeKube, cache: Cache, *namespaces: str) -> set[RunKey]:
    return await read_everything(cast("Kube", kube), cache, namespaces)


async def test_all_of_ours_is_read(kube: FakeKube) -> None:
    cache = Cache()
    assert await read(kube, cache) == {A, B}
    assert [job.name for job in cache.jobs_of(A)] == ["a-a1"]


async def test_only_watched_namespaces_are_read(kube: FakeKube) -> None:
    cache = Cache()
    assert await read(kube, cache, "other") == {B}
    assert await read(kube, cache, "other", "default") == {A, B}


async def test_what_is_gone_is_found(kube: FakeKube) -> None:
    cache = Cache()
    await read(kube, cache)
    kube.remove(RUNS, "default", "a")
    kube.remove(JOBS, "default", "a-a1")
    assert await read(kube, cache) == {A, B}, "also the one that is gone"
    assert set(cache.runs) == {B}
    assert cache.jobs_of(A) == ()


async def test_a_list_that_fails_is_read_again_later(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [UnavailableError("down"), {A}]
    found: asyncio.Queue[set[RunKey]] = asyncio.Queue()

    async def read_once() -> set[RunKey]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast("set[RunKey]", answer)

    reading = asyncio.create_task(keep_reading(read_once, found.put_nowait, every_seconds=0.001))
    assert await asyncio.wait_for(found.get(), 5) == {A}
    reading.cancel()
    assert "down" in caplog.text


def attempt(run: str = "a", **fields: Any) -> dict[str, Any]:
    written = {"number": 1, "job": f"{run}-a1", "jobUid": "x", **fields}
    return {"status": {"attempts": [written]}}


async def test_a_new_authority_reaches_the_attempts_that_go_on(kube: FakeKube) -> None:
    kube.change(RUNS, "default", "a", attempt())
    kube.change(RUNS, "other", "b", attempt("b", outcome="Hang"))
    for key in (A, B):
        body = {"metadata": {"name": f"{key.name}-a1"}, "data": {"ca.crt": "old", "run.json": "{}"}}
        kube.put(CONFIG_MAPS, key.namespace, body)
    await publish_authority(cast("Kube", kube), kube.cache, "new")
    data = kube.objects["ConfigMap", "default", "a-a1"]["data"]
    assert data == {"ca.crt": "new", "run.json": "{}"}
    assert kube.objects["ConfigMap", "other", "b-a1"]["data"]["ca.crt"] == "old"


async def test_an_authority_that_cannot_be_told_does_no_harm(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        raise UnavailableError("down")

    kube.change(RUNS, "default", "a", attempt())
    kube.change(RUNS, "other", "b", attempt("b"))
    assert await publish_authority(cast("Kube", kube), kube.cache, "new")
    assert caplog.text == "", "a ConfigMap that is yet to be made gets the new one anyway"
    kube.fail = refuse
    assert not await publish_authority(cast("Kube", kube), kube.cache, "new"), "to be tried again"
    assert "down" in caplog.text


def test_an_attempt_is_live_from_the_moment_it_is_written_down(kube: FakeKube) -> None:
    assert live_attempts(kube.cache) == []
    kube.change(RUNS, "default", "a", attempt(jobUid=None))
    assert live_attempts(kube.cache) == [(A, "a-a1")]
