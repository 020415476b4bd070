"""A run of a schedule that a person makes."""

from __future__ import annotations

import re
from typing import cast

import pytest
from clockwork import Clockwork, name_at

from llmtrain_api.errors import ConfigError
from llmtrain_api.run import NAME_RULE
from llmtrain_operator.kube import AlreadyExistsError, Kube, NotFoundError
from llmtrain_operator.schedule_children import manual_run_name, run_name
from llmtrain_operator.trigger import trigger


@pytest.fixture
def clockwork() -> Clockwork:
    return Clockwork()


async def make_run(clockwork: Clockwork, schedule: str = "tick") -> str:
    return await trigger(cast("Kube", clockwork.kube), "default", schedule, clockwork.kube.now)


async def test_it_is_made_at_once_and_belongs_to_the_schedule(clockwork: Clockwork) -> None:
    clockwork.apply(schedule="@weekly")
    await clockwork.settle()
    name = await make_run(clockwork)
    await clockwork.settle()
    assert clockwork.runs == [name]
    assert [(one.name, one.scheduled_time) for one in clockwork.status.active] == [(name, None)]
    assert clockwork.status.last_schedule_time is None, "no time of the schedule is used up"
    uri = clockwork.run(name)["spec"]["output"]["uri"]
    assert uri == "s3://runs/tick/20261121T120030Z/"


async def test_it_counts_for_the_policy_and_for_the_history(clockwork: Clockwork) -> None:
    clockwork.apply(successfulRunsHistoryLimit=1)
    await clockwork.settle()
    name = await make_run(clockwork)
    await clockwork.until("12:01:10")
    assert clockwork.skipped() == [("12:01:00", "RunActive")]
    clockwork.end(name)
    await clockwork.settle()
    clockwork.end(name_at("12:01:00"))
    await clockwork.until("12:01:40")
    assert clockwork.runs == [name_at("12:01:00")]


async def test_a_suspended_schedule_can_be_triggered(clockwork: Clockwork) -> None:
    clockwork.apply(suspend=True)
    assert await make_run(clockwork) in clockwork.runs


async def test_what_cannot_be_is_told(clockwork: Clockwork) -> None:
    with pytest.raises(NotFoundError, match='"tick" not found'):
        await make_run(clockwork)
    clockwork.apply(timeZone="Mars/Olympus")
    with pytest.raises(ConfigError, match="no time zone"):
        await make_run(clockwork)


async def test_two_within_a_second_are_one(clockwork: Clockwork) -> None:
    clockwork.apply()
    await make_run(clockwork)
    with pytest.raises(AlreadyExistsError):
        await make_run(clockwork)


def test_its_name_is_never_that_of_a_time_and_never_too_long() -> None:
    schedule, now = "a" * 31, 1_795_000_000.0
    name = manual_run_name(schedule, now)
    assert NAME_RULE.check(name) == name
    assert not re.fullmatch(rf"{schedule}-\d+", name)
    assert NAME_RULE.check(run_name(schedule, now)) == run_name(schedule, now)
