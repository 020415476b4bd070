"""The times of a schedule, above all where the clock changes."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from llmtrain_api.errors import ConfigError
from llmtrain_operator.timetable import Jitter, Timetable

NO_DELAY = Jitter("", 0)
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # Its clock changes by half an hour.
    "America/Santiago",  # It leaves out midnight, on the southern half.
    "Africa/Cairo",  # It leaves out midnight.
)


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def local(time: float, zone: str) -> str:
    return datetime.fromtimestamp(time, ZoneInfo(zone)).strftime("%m-%d %H:%M %z")


def times(schedule: str, zone: str, start: str, count: int) -> list[str]:
    """Returns the next times after noon of a day, as the zone's clocks show them."""
    noon = datetime.fromisoformat(f"{start}T12:00:00").replace(tzinfo=ZoneInfo(zone))
    found = itertools.islice(Timetable(schedule, zone).after(noon.timestamp()), count)
    return [local(time, zone) for time in found]


@pytest.mark.parametrize(
    ("schedule", "zone", "start", "expected"),
    [
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28",
            ["03-29 03:00 +0200", "03-30 02:30 +0200"],
            id="Berlin, spring: what is left out comes right after the gap, once",
        ),
        pytest.param(
            "0,30 2 * * *",
            "Europe/Berlin",
            "2026-03-28",
            ["03-29 03:00 +0200", "03-30 02:00 +0200", "03-30 02:30 +0200"],
            id="Berlin, spring: two times that are left out come as one",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24",
            ["10-25 02:30 +0200", "10-26 02:30 +0100"],
            id="Berlin, autumn: what is there twice counts the first time",
        ),
        pytest.param(
            "0 3 * * *",
            "Europe/Berlin",
            "2026-10-24",
            ["10-25 03:00 +0100", "10-26 03:00 +0100"],
            id="Berlin, autumn: the end of the doubled hour",
        ),
        pytest.param(
            "0 2 * * 0",
            "Europe/Berlin",
            "2026-03-21",
            ["03-22 02:00 +0100", "03-29 03:00 +0200", "04-05 02:00 +0200"],
            id="Berlin, spring: a week's time that is left out is not lost",
        ),
        pytest.param(
            "30 2 * * *",
            "America/New_York",
            "2026-03-07",
            ["03-08 03:00 -0400", "03-09 02:30 -0400"],
            id="New York, spring",
        ),
        pytest.param(
            "30 1 * * *",
            "America/New_York",
            "2026-10-31",
            ["11-01 01:30 -0400", "11-02 01:30 -0500"],
            id="New York, autumn",
        ),
        pytest.param(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03",
            ["10-04 02:30 +1100", "10-05 02:15 +1100"],
            id="Lord Howe, spring: half an hour is left out",
        ),
        pytest.param(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04",
            ["04-05 01:45 +1100", "04-06 01:45 +1030"],
            id="Lord Howe, autumn: half an hour comes twice",
        ),
        pytest.param(
            "30 0 * * *",
            "America/Santiago",
            "2026-09-05",
            ["09-06 01:00 -0300", "09-07 00:30 -0300"],
            id="Santiago, spring: midnight is left out",
        ),
        pytest.param(
            "30 23 * * *",
            "America/Santiago",
            "2026-04-04",
            ["04-04 23:30 -0300", "04-05 23:30 -0400"],
            id="Santiago, autumn: the hour before midnight comes twice",
        ),
        pytest.param(
            "@daily",
            "Africa/Cairo",
            "2026-04-23",
            ["04-24 01:00 +0300", "04-25 00:00 +0300"],
            id="Cairo, spring: midnight is left out, and the day has its run",
        ),
        pytest.param(
            "30 23 * * *",
            "Africa/Cairo",
            "2026-10-29",
            ["10-29 23:30 +0300", "10-30 23:30 +0200"],
            id="Cairo, autumn: the hour before midnight comes twice",
        ),
        pytest.param(
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-24",
            [
                *(f"10-24 {hour}:30 +0200" for hour in range(12, 24)),
                *(f"10-25 0{hour}:30 +0200" for hour in range(3)),
                "10-25 02:30 +0100",
                "10-25 03:30 +0100",
            ],
            id="every hour goes by time that has passed, through both of the doubled hours",
        ),
        pytest.param(
            "0 2 * * *",
            "Asia/Kolkata",
            "2026-03-28",
            ["03-29 02:00 +0530", "03-30 02:00 +0530"],
            id="Kolkata: a clock that never changes",
        ),
    ],
)
def test_the_clock_changes(schedule: str, zone: str, start: str, expected: list[str]) -> None:
    assert times(schedule, zone, start, len(expected)) == expected


def every_day(hour: int, minute: int, zone: str, year: int) -> list[float]:
    """Returns the times of one moment on each day of a year, reckoned without cron."""
    found = []
    day = datetime(year, 1, 1)  # noqa: DTZ001 - what clocks show, in whatever zone.
    while day.year == year:
        shown = day.replace(hour=hour, minute=minute)
        moment = shown.replace(tzinfo=ZoneInfo(zone))
        while moment.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) != shown:
            shown += timedelta(minutes=1)  # The clock left it out.
            moment = shown.replace(tzinfo=ZoneInfo(zone))
        found.append(moment.timestamp())
        day += timedelta(days=1)
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hour", [0, 1, 2, 3, 23])
def test_each_day_has_its_time_once(zone: str, hour: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)).timestamp() - 1
    end = datetime(2027, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
    found = itertools.takewhile(lambda t: t < end, Timetable(f"30 {hour} * * *", zone).after(start))
    assert list(found) == every_day(hour, 30, zone, 2026)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("schedule", ["* * * * *", "17 */3 * * *", "30 2 * * *", "@weekly"])
def test_the_latest_time_is_the_last_of_those_that_came(zone: str, schedule: str) -> None:
    timetable, dice = Timetable(schedule, zone), random.Random(0)
    start, end = stamp("2026-10-20T00:00:00Z"), stamp("2026-11-12T00:00:00Z")
    all_times = list(itertools.takewhile(lambda t: t <= end, timetable.after(start)))
    moments = [dice.uniform(start, all_times[-1] - 1) for _ in range(25)] + all_times[:2]
    for moment in moments:
        came = [time for time in all_times if time <= moment]
        assert timetable.latest(start, moment, NO_DELAY) == (came[-1] if came else None)
        assert timetable.next(moment) == next(time for time in all_times if time > moment)


@pytest.mark.parametrize(
    ("schedule", "since", "until", "expected"),
    [
        pytest.param("0 2 * * *", "2026-11-20", "2026-11-20T01:59:00", None, id="none yet"),
        pytest.param(
            "0 2 * * *", "2026-11-20", "2026-11-20T02:00:00", "2026-11-20T02:00:00", id="just now"
        ),
        pytest.param("0 2 * * *", "2026-11-20T02:00:00", "2026-11-21", None, id="made already"),
        pytest.param(
            "0 2 29 2 *", "2020-01-01", "2026-11-21", "2024-02-29T02:00:00", id="a leap day"
        ),
        pytest.param("@yearly", "2026-01-01", "2026-11-21", None, id="none since"),
        pytest.param(
            "@monthly", "2020-01-01", "2026-11-21", "2026-11-01T00:00:00", id="one of many"
        ),
    ],
)
def test_the_latest_time(schedule: str, since: str, until: str, expected: str | None) -> None:
    found = Timetable(schedule, "Etc/UTC").latest(
        stamp(f"{since}+00:00" if "T" in since else f"{since}T00:00:00+00:00"),
        stamp(f"{until}+00:00" if "T" in until else f"{until}T00:00:00+00:00"),
        NO_DELAY,
    )
    assert found == (None if expected is None else stamp(f"{expected}+00:00"))


def test_times_are_counted_up_to_a_limit() -> None:
    timetable, noon = Timetable("* * * * *", "Etc/UTC"), stamp("2026-11-21T12:00:00Z")
    assert timetable.count(noon, noon + 60, 100) == 0
    assert timetable.count(noon, noon + 600, 100) == 9
    assert timetable.count(noon, noon + 86_400, 100) == 100


def test_the_second_of_two_equal_hours_has_no_times_of_the_first() -> None:
    """cronsim, begun in there, comes with the first hour's, which has passed."""
    second_hour = stamp("2026-10-25T02:10:00+01:00")
    found = Timetable("30 2 * * *", "Europe/Berlin").next(second_hour)
    assert found is not None
    assert local(found, "Europe/Berlin") == "10-26 02:30 +0100"


def test_a_delay_is_always_the_same_and_within_its_bound() -> None:
    times_ = [60.0 * number for number in range(500)]
    delays = [Jitter("uid", 600).of(time) for time in times_]
    assert delays == [Jitter("uid", 600).of(time) for time in times_]
    assert (min(delays), max(delays)) >= (0, 500)
    assert max(delays) <= 600
    assert len(set(delays)) > 200
    assert delays != [Jitter("other", 600).of(time) for time in times_]


def test_a_time_is_not_due_before_its_delay_is_over() -> None:
    timetable, jitter = Timetable("@hourly", "Etc/UTC"), Jitter("uid", 1800)
    noon = stamp("2026-11-21T12:00:00Z")
    delay = jitter.of(noon)
    assert delay > 0
    assert timetable.latest(noon - 1, noon + delay - 1, jitter) is None
    assert timetable.latest(noon - 1, noon + delay, jitter) == noon


@pytest.mark.parametrize(
    ("schedule", "zone", "message"),
    [
        pytest.param("0 5-3 * * *", "Etc/UTC", "schedule: hour cannot be as in", id="a range back"),
        pytest.param("0 0 30 2 *", "Etc/UTC", "a day that some month has", id="30 February"),
        pytest.param("@daily", "Mars/Olympus", "no time zone 'Mars/Olympus'", id="no such zone"),
        pytest.param("@daily", "Europe", "no time zone 'Europe'", id="a continent"),
    ],
)
def test_what_cannot_be_is_refused(schedule: str, zone: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Timetable(schedule, zone)
