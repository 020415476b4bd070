"""The work queue, with a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from llmtrain_operator.queue import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, WorkQueue


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(clock, lambda: 1.0)


async def take(queue: WorkQueue[str]) -> list[str]:
    """Takes all keys that are ready, and is done with them."""
    queue.promote()
    keys = [await queue.get() for _ in range(len(queue))]
    for key in keys:
        queue.done(key)
    return keys


async def test_a_key_waits_only_once(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert await take(queue) == ["a", "b"]


async def test_a_key_comes_again_if_it_changed_while_it_was_worked_on(
    queue: WorkQueue[str],
) -> None:
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "one worker per key"
    queue.done("a")
    assert await take(queue) == ["a"]


async def test_keys_that_come_first_overtake(queue: WorkQueue[str], clock: Clock) -> None:
    assert not queue.had_first(2)
    queue.add("a")
    queue.add("b")
    queue.add("c", first=True)
    clock.now = 1
    assert queue.had_first(2)
    clock.now = 2
    assert not queue.had_first(2)
    queue.add("b", first=True)
    assert await take(queue) == ["c", "b", "a"]


async def test_a_delayed_key_waits_for_its_time(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 10)
    clock.now = 9.9
    assert await take(queue) == []
    clock.now = 10
    assert await take(queue) == ["a"]


async def test_the_shortest_delay_counts(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.now = 5
    assert await take(queue) == ["a"]
    clock.now = 30
    assert await take(queue) == [], "the longer ones are void"


async def test_adding_a_key_voids_its_delay(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 10)
    queue.add("a")
    assert await take(queue) == ["a"]
    clock.now = 10
    assert await take(queue) == []


async def test_delays_after_failures_double_up_to_a_bound(queue: WorkQueue[str]) -> None:
    delays = [queue.retry("a") for _ in range(20)]
    assert delays[:3] == [FIRST_DELAY_SECONDS, 2 * FIRST_DELAY_SECONDS, 4 * FIRST_DELAY_SECONDS]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    assert queue.retry("b") == FIRST_DELAY_SECONDS, "each key has its own"
    queue.succeeded("a")
    assert queue.retry("a") == FIRST_DELAY_SECONDS


async def test_jitter_spreads_what_failed_together(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock, lambda: 0.0)
    assert queue.retry("a") == FIRST_DELAY_SECONDS / 2


async def test_a_worker_sleeps_until_there_is_work() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add("a")
    assert await asyncio.wait_for(waiting, 1) == "a"


async def test_a_worker_wakes_when_a_delay_is_over() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("late", 5)
    queue.add_after("soon", 0.02)
    assert await asyncio.wait_for(waiting, 1) == "soon"


async def test_a_key_that_is_forgotten_does_not_come_back(
    queue: WorkQueue[str], clock: Clock
) -> None:
    queue.add_after("a", 10)
    queue.forget("a")
    clock.now = 20
    assert await take(queue) == []
