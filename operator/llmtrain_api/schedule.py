"""`LLMTrainSchedule`: runs made by the clock, all of one template.

The grammar of `schedule` is what a CronJob and every cron program read in the same way. What they
read differently is refused: a schedule must mean the same wherever it is written.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Time
from llmtrain_api.markers import ListMap, Rule
from llmtrain_api.references import MAX_NAME_LENGTH
from llmtrain_api.run import RunSpec
from llmtrain_api.status import Condition

MAX_SCHEDULE_NAME_LENGTH = MAX_NAME_LENGTH - len("-29700000")
"""A run is named `<schedule>-<minutes since 1970>`, which has eight digits until the year 2160."""

_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
SCHEDULE_NAME_RULE = Rule(
    f"size(self.metadata.name) <= {MAX_SCHEDULE_NAME_LENGTH}"
    f" && self.metadata.name.matches('^{_NAME}$')",
    lambda name: len(name) <= MAX_SCHEDULE_NAME_LENGTH and re.fullmatch(_NAME, name) is not None,
    f"use at most {MAX_SCHEDULE_NAME_LENGTH} lower-case letters, digits and '-', starting with a"
    " letter and ending with a letter or digit: the names of its runs are made of it",
    at="metadata.name",
)

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Words for common times, in five fields."""

_STEP = "/[1-9][0-9]?"
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "SUN|MON|TUE|WED|THU|FRI|SAT"
_VALUES = (
    "[0-5]?[0-9]",
    "([01]?[0-9]|2[0-3])",
    "(0?[1-9]|[12][0-9]|3[01])",
    f"(0?[1-9]|1[0-2]|{_MONTHS})",
    f"([0-6]|{_DAYS})",
)
"""Minute, hour, day of the month, month, day of the week."""


def _field(value: str) -> str:
    # No `5/15`: some take it for every 15th from 5 on, and count Sunday again as 7.
    item = f"([*]({_STEP})?|{value}(-{value}({_STEP})?)?)"
    return f"{item}(,{item})*"


_FIVE_FIELDS = " +".join(_field(value) for value in _VALUES)
_CRON = f"(?i:{_FIVE_FIELDS})|{'|'.join(MACROS)}"
_TWO_FIELDS = "[^ ]+ +[^ ]+ +"
_EVERY_NTH_OF_SOME_DAYS = (
    f"{_TWO_FIELDS}([*]/[^ ]+ +[^ ]+ +([^* ].*|[*]/.*)|[^* ][^ ]* +[^ ]+ +[*]/.*)"
)
_NAMES_A_ZONE = "(CRON_)?TZ=.*"

Cron = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Rule(
        f"self.matches('^({_CRON})$') || self.matches('^{_NAMES_A_ZONE}')",
        lambda text: re.fullmatch(f"{_CRON}|{_NAMES_A_ZONE}", text) is not None,
        "use minute, hour, day of month, month, day of week (0-6), such as '0 2 * * 0',"
        f" or {', '.join(macro for macro in MACROS if macro not in ('@midnight', '@annually'))}",
    ),
    Rule(
        f"!self.matches('^{_NAMES_A_ZONE}')",
        lambda text: re.fullmatch(_NAMES_A_ZONE, text) is None,
        "remove the time zone from it, and set timeZone, such as Europe/Berlin",
    ),
    Rule(
        f"!self.matches('^{_EVERY_NTH_OF_SOME_DAYS}$')",
        lambda text: re.fullmatch(_EVERY_NTH_OF_SOME_DAYS, text) is None,
        "cron programs differ on '*/n' in one field of days beside days in the other: use a list"
        " of days",
    ),
]
"""Five fields, or one of `MACROS`."""

_ZONE = "[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*"
TimeZone = Annotated[
    str,
    Field(max_length=64),
    Rule(
        f"self.matches('^{_ZONE}$') && self != 'Local'",
        lambda text: re.fullmatch(_ZONE, text) is not None and text != "Local",
        "use a name of the IANA database, such as Europe/Berlin or Etc/UTC",
    ),
]

VARIABLES = ("schedule", "run", "date", "timestamp")
"""What may stand in braces in the template's `output.uri`."""

_KNOWN = "|".join(VARIABLES)
_TEMPLATED = f"([^{{}}]|[{{]({_KNOWN})[}}])*"
_DISTINCT = ".*[{](run|timestamp)[}].*"

TRACKED_PREFIXES = (
    "argocd.argoproj.io/",
    "helm.toolkit.fluxcd.io/",
    "kubectl.kubernetes.io/",
    "kustomize.toolkit.fluxcd.io/",
    "llmtrain.dev/",
    "meta.helm.sh/",
)
TRACKED_LABEL = "app.kubernetes.io/instance"
"""By these, tools know what is theirs: a run that carries them would be taken away as unknown."""


def _is_tracked(keys: dict[str, str]) -> bool:
    return any(key.startswith(TRACKED_PREFIXES) or key == TRACKED_LABEL for key in keys)


_NOT_TRACKED = Rule(
    "!self.exists(key, "
    + " || ".join(f"key.startsWith('{prefix}')" for prefix in TRACKED_PREFIXES)
    + f" || key == '{TRACKED_LABEL}')",
    lambda keys: not _is_tracked(keys),
    "remove what llmtrain, Argo CD, Flux, Helm and kubectl know their own objects by: they would"
    " take the runs for objects that git does not hold",
)


class RunMetadata(ApiModel):
    """Labels and annotations of the runs."""

    labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32), _NOT_TRACKED
    ] = {}
    """Labels of each run."""

    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32), _NOT_TRACKED
    ] = {}
    """Annotations of each run."""


class RunTemplate(ApiModel):
    """The run that is made each time."""

    rules: ClassVar = (
        Rule(
            f"self.spec.output.uri.matches('^{_TEMPLATED}$')",
            lambda it: re.fullmatch(_TEMPLATED, it.spec.output.uri) is not None,
            f"use no braces but {', '.join(f'{{{name}}}' for name in VARIABLES)}",
            at="spec.output.uri",
        ),
        Rule(
            f"self.spec.output.uri.matches('^{_DISTINCT}$')",
            lambda it: re.fullmatch(_DISTINCT, it.spec.output.uri) is not None,
            "set {run} or {timestamp} in it, so that each run has a place of its own, such as"
            " s3://runs/weekly/{timestamp}/",
            at="spec.output.uri",
        ),
    )

    metadata: RunMetadata = RunMetadata()
    """Labels and annotations of each run."""

    spec: RunSpec
    """The spec of each run, as in an LLMTrainRun. In `output.uri`, `{run}` stands for the run's
    name, `{schedule}` for the schedule's, `{date}` for the day in `timeZone` (`2026-11-22`) and
    `{timestamp}` for the time in UTC (`20261122T010000Z`)."""


class ScheduleSpec(ApiModel):
    """When runs are made, and of what."""

    schedule: Cron
    """When: five fields as in a CronJob (minute, hour, day of the month, month, day of the week
    from 0, Sunday), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. A time that the clock
    leaves out in spring is made up for right after; one that comes twice in autumn counts once."""

    time_zone: TimeZone = "Etc/UTC"
    """The zone of `schedule`, by its name in the IANA database, such as `Europe/Berlin`."""

    suspend: bool = False
    """True makes no more runs; runs that are there go on. What passes meanwhile is not made up
    for."""

    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Forbid"
    """What happens when a time comes while a run of this schedule is not finished. `Forbid`: the
    time waits for the end of that run, until `startingDeadlineSeconds` or the next time. `Replace`:
    that run is deleted. `Allow`: both run. Default: `Forbid`, unlike a CronJob."""

    starting_deadline_seconds: Annotated[int, Field(ge=10, le=31_536_000)] | None = None
    """Seconds after its time in which a run may still be made, jitter left aside. Default: until
    the next time. Of several times that were missed only the latest is made up for."""

    jitter_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Runs are made up to so many seconds after their time, so that many schedules of one time do
    not start at once. The delay of a time is always the same."""

    successful_runs_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Runs that succeeded and are kept; older ones are deleted, with their Jobs and pods. Storage
    is not touched."""

    failed_runs_history_limit: Annotated[int, Field(ge=0, le=100)] = 1
    """Runs that failed and are kept; older ones are deleted."""

    run_template: RunTemplate
    """The run that is made each time."""


MAX_ACTIVE_LISTED = 10
MAX_SKIPPED_KEPT = 5


class ActiveRun(ApiModel):
    """A run of the schedule that is not finished."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the run."""

    scheduled_time: Time | None = None
    """The time that it was made for; absent for one that a person made."""


class Basis(ApiModel):
    """What times are reckoned by, and since when."""

    schedule: Annotated[str, Field(max_length=128)]
    """`spec.schedule` as the operator saw it last."""

    time_zone: Annotated[str, Field(max_length=64)]
    """`spec.timeZone` as the operator saw it last."""

    suspend: bool
    """`spec.suspend` as the operator saw it last."""

    since: Time
    """When the operator first saw them so. No earlier time is made up for."""


class SkippedTime(ApiModel):
    """A time at which no run was made."""

    time: Time
    """The time, as the schedule says it."""

    reason: Annotated[str, Field(max_length=64)]
    """Why, in one word: RunActive, TooLate, Missed, Refused."""

    message: Annotated[str, Field(max_length=512)]
    """Why, in words."""


class ScheduleStatus(ApiModel):
    """What is known of a schedule."""

    observed_generation: int = -1
    """`metadata.generation` that this status speaks of."""

    conditions: Annotated[list[Condition], Field(max_length=16), ListMap(("type",))] = []
    """Ready, Reconciling, Stalled."""

    last_schedule_time: Time | None = None
    """The latest time for which a run was made."""

    next_schedule_time: Time | None = None
    """When the next run is due, jitter included; absent while suspended."""

    last_successful_time: Time | None = None
    """When a run of this schedule last succeeded."""

    active_runs: int | None = None
    """How many runs of this schedule are not finished."""

    active: Annotated[list[ActiveRun], Field(max_length=MAX_ACTIVE_LISTED), ListMap(("name",))] = []
    """The newest of them, oldest first."""

    skipped: Annotated[
        list[SkippedTime], Field(max_length=MAX_SKIPPED_KEPT), ListMap(("time",))
    ] = []
    """The latest times at which no run was made, and why, newest first."""

    basis: Basis | None = None
    """What times are reckoned by, and since when."""
