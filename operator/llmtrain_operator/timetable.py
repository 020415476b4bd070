"""The times of a schedule, in its time zone; pure.

cronsim follows Debian's cron: a time that the clock leaves out comes right after the gap, and one
that comes twice counts the first time. A field of hours or minutes that starts with `*` goes by
time that has passed instead, through both of the doubled hours.

cronsim only ever counts forward here: counting backward from within the second of two equal hours
it misses the times of the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from llmtrain_api.errors import ConfigError
from llmtrain_api.schedule import MACROS

MINUTE = 60.0
_DAY = 86_400.0
_WINDOWS = (3600.0, _DAY, 8 * _DAY, 32 * _DAY, 367 * _DAY, 9 * 366 * _DAY)
"""How far back the latest time is looked for: an hour, a day, a week, a month, a year, and the time
between two leap days where a century has none."""


class Timetable:
    """The times of one schedule. All times are seconds since 1970.

    Raises:
        ConfigError: There is no such time zone, or no such times.
    """

    def __init__(self, schedule: str, time_zone: str) -> None:
        self._zone = _zone(time_zone)
        self._expression = MACROS.get(schedule, schedule)
        try:
            CronSim(self._expression, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ConfigError(
                "schedule",
                f"{str(error).removeprefix('Bad ')} cannot be as in {schedule!r}",
                "use a range from low to high, and a day that some month has",
            ) from error

    def after(self, time: float) -> Iterator[float]:
        """Yields the times after `time`, soonest first; ends where there are none for 50 years."""
        latest = time
        start = datetime.fromtimestamp(int(time // 1), self._zone)
        for moment in CronSim(self._expression, start):
            # In the second of two equal hours cronsim may begin with times of the first one.
            if moment.timestamp() > latest:
                latest = moment.timestamp()
                yield latest

    def next(self, time: float) -> float | None:
        """Returns the first time after `time`, or None if there is none for 50 years."""
        return next(self.after(time), None)

    def latest(self, since: float, until: float, delay: Jitter) -> float | None:
        """Returns the latest time after `since` that, with its delay, is not after `until`."""
        for window in _WINDOWS:
            begin = max(since, until - window - delay.most)
            due = [time for time in self._between(begin, until) if time + delay.of(time) <= until]
            if due:
                return due[-1]
            if begin == since:
                return None
        return None

    def count(self, since: float, before: float, limit: int) -> int:
        """Returns how many times there are between two moments, both left out, up to a limit."""
        number = 0
        for time in self._between(since, before):
            if time == before or number == limit:
                break
            number += 1
        return number

    def day(self, time: float) -> str:
        """Returns the day in the schedule's zone, such as `2026-11-22`."""
        return datetime.fromtimestamp(time, self._zone).strftime("%Y-%m-%d")

    def _between(self, since: float, until: float) -> Iterator[float]:
        for time in self.after(since):
            if time > until:
                return
            yield time


class Jitter:
    """Delays of up to `most` seconds, always the same for one schedule and one of its times."""

    def __init__(self, uid: str, most: int) -> None:
        self.most = most
        self._uid = uid

    def of(self, time: float) -> int:
        """Returns the delay of a time, in whole seconds."""
        if not self.most:
            return 0
        digest = hashlib.sha256(f"{self._uid}/{int(time)}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % (self.most + 1)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # OSError: it is a folder, such as `Europe`.
        raise ConfigError(
            "timeZone",
            f"there is no time zone {name!r}",
            "use a name of the IANA database, such as Europe/Berlin or Etc/UTC",
        ) from error
