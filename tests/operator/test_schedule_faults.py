"""The operator dies between any two writes of a schedule: no time is lost, none has two runs.

A process that dies after a write, before it has seen the answer, leaves the same cluster as one
that dies before the next write; so death before each write in turn is every point there is.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from clockwork import Clockwork, name_at

MINUTES = 5


class KilledError(BaseException):
    """The process is gone: nothing catches it."""


def kill_before(numbers: set[int]) -> Callable[[str, str, str], None]:
    """Returns what fails the writes of these numbers, counted from 1."""
    count = 0

    def fail(verb: str, kind: str, name: str) -> None:
        nonlocal count
        if verb in ("create", "patch", "delete") and kind != "Event":
            count += 1
            if count in numbers:
                raise KilledError

    return fail


async def live(policy: str, kills: set[int]) -> tuple[Clockwork, int]:
    """Lets a schedule go off five times, and returns it with the number of deaths.

    The runs end some seconds after it went off: each time, but under Forbid every other time, so
    that a time waits, and under Replace at the end only.
    """
    clockwork = Clockwork()
    clockwork.apply(
        concurrencyPolicy=policy, successfulRunsHistoryLimit=1, failedRunsHistoryLimit=1
    )
    clockwork.kube.fail = kill_before(kills)
    deaths = 0

    async def go_on(time: str = "") -> None:
        """Lives on until a time, or until there is nothing to do, through however many deaths."""
        nonlocal deaths
        while True:
            try:
                await (clockwork.until(time) if time else clockwork.settle())
            except KilledError:
                deaths += 1
                await clockwork.restart_operator()
            else:
                return

    await go_on()
    for minute in range(1, MINUTES + 1):
        await go_on(f"12:0{minute}:10")
        if policy == "Allow" or minute == MINUTES or (policy == "Forbid" and minute % 2 == 0):
            for run in clockwork.status.active:
                clockwork.end(run.name, "Failed" if minute % 4 else "Succeeded")
        await go_on()
        await go_on(f"12:0{minute}:40")
    return clockwork, deaths


MADE = {"Forbid": (1, 2, 4, 5), "Allow": (1, 2, 3, 4, 5), "Replace": (1, 2, 3, 4, 5)}
"""The minutes whose runs are made."""
WRITES = {"Forbid": 14, "Allow": 19, "Replace": 16}
"""As many as such a life takes, deaths aside; a test holds it."""
POINTS = [
    pytest.param(policy, number, id=f"{policy}, before write {number}")
    for policy, count in WRITES.items()
    for number in range(1, count + 1)
]


@pytest.mark.parametrize(("policy", "number"), POINTS)
async def test_a_death_neither_doubles_a_run_nor_loses_one(policy: str, number: int) -> None:
    clockwork, deaths = await live(policy, {number})
    unharmed, _ = await live(policy, set())
    assert deaths == 1
    assert clockwork.created == [name_at(f"12:0{minute}:00") for minute in MADE[policy]]
    assert clockwork.runs == unharmed.runs
    assert clockwork.status == unharmed.status


@pytest.mark.parametrize("policy", WRITES)
async def test_every_write_is_a_point_of_the_test(policy: str) -> None:
    clockwork, _ = await live(policy, set())
    writes = [write for write in clockwork.kube.writes if " Event " not in write]
    assert len(writes) == WRITES[policy], writes


@pytest.mark.parametrize("policy", WRITES)
async def test_many_deaths_in_a_row_do_no_more_harm_than_one(policy: str) -> None:
    clockwork, deaths = await live(policy, set(range(1, 3 * WRITES[policy], 2)))
    unharmed, _ = await live(policy, set())
    assert deaths > MINUTES
    assert clockwork.created == unharmed.created
    assert clockwork.status == unharmed.status
