"""What a schedule may be."""

from __future__ import annotations

import re

import pytest
import specs
from apirules import rules_of
from pydantic import ValidationError
from schedule_mistakes import BAD_NAMES, MISTAKES, Mistake, good_schedule

from llmtrain_api.crd.definition import llmtrainschedules
from llmtrain_api.markers import MUTABLE, Rule
from llmtrain_api.references import MAX_NAME_LENGTH
from llmtrain_api.run import RunSpec
from llmtrain_api.schedule import (
    MACROS,
    MAX_SCHEDULE_NAME_LENGTH,
    SCHEDULE_NAME_RULE,
    ScheduleSpec,
)


@pytest.mark.parametrize("stage", specs.STAGES)
def test_a_good_schedule_is_taken(stage: str) -> None:
    spec = ScheduleSpec.model_validate(good_schedule(stage))
    assert spec.run_template.spec.stage == stage
    assert (spec.time_zone, spec.concurrency_policy) == ("Etc/UTC", "Forbid")


def told(mistake: Mistake) -> list[str]:
    """Returns what rules say of a mistake."""
    with pytest.raises(ValidationError) as caught:
        ScheduleSpec.model_validate(mistake.spec())
    return [error["msg"] for error in caught.value.errors() if error["type"] == "rule"]


@pytest.mark.parametrize("mistake", [pytest.param(one, id=one.id) for one in MISTAKES])
def test_a_mistake_is_refused(mistake: Mistake) -> None:
    told(mistake)


@pytest.mark.parametrize("mistake", [pytest.param(one, id=one.id) for one in BAD_NAMES])
def test_a_bad_name_is_refused(mistake: Mistake) -> None:
    with pytest.raises(Exception, match=f"at most {MAX_SCHEDULE_NAME_LENGTH} lower-case"):
        SCHEDULE_NAME_RULE.check(mistake.name)


def test_a_name_leaves_room_for_the_names_of_the_runs() -> None:
    longest = "a" * MAX_SCHEDULE_NAME_LENGTH
    assert SCHEDULE_NAME_RULE.check(longest) == longest
    assert len(f"{longest}-99999999") == MAX_NAME_LENGTH


OF_A_RUN = {(rule.at, rule.cel) for rule in rules_of(RunSpec)}
OWN_RULES = [
    rule for rule in dict.fromkeys(rules_of(ScheduleSpec)) if (rule.at, rule.cel) not in OF_A_RUN
]
TOLD = {message for mistake in MISTAKES for message in told(mistake)}


@pytest.mark.parametrize(
    "rule",
    [pytest.param(rule, id=f"{rule.at or 'value'}: {rule.message[:60]}") for rule in OWN_RULES],
)
def test_each_rule_has_its_mistake(rule: Rule) -> None:
    start = f"{rule.at}: " if rule.at else ""
    assert start + rule.message in TOLD


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "0 2 * * 0",
        "  0 2 * * 0".strip(),
        "0   2 * *   0",
        "59 23 31 12 6",
        "05 02 01 01 *",
        "*/15 * * * *",
        "0 0-23/6 * * *",
        "0,30 8-17 * * MON-FRI",
        "0 0 1,15 jan,jul *",
        "0 0 13 * 5",
        "0 0 */2 * *",
        "0 0 * * */2",
        *MACROS,
    ],
)
def test_what_every_cron_reads_in_one_way_is_taken(schedule: str) -> None:
    spec = ScheduleSpec.model_validate({**good_schedule(), "schedule": schedule})
    assert spec.schedule == schedule


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * *",
        "* * * * * *",
        "* * * * *\n",
        " 0 2 * * 0",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 32 * *",
        "0 0 * 13 *",
        "0 0 * * 7",
        "0 0 * * SUNDAY",
        "0 0 ? * 1",
        "0 0 15W * *",
        "0 0 * * 1#2",
        "*/0 * * * *",
        "1,,2 * * * *",
        "1- * * * *",
        "-1 * * * *",
        "@Weekly",
        "@reboot",
        "0 0 1 * */2",
        "0 0 */2 * MON",
        "0 0 */2 * */3",
        "CRON_TZ=Asia/Tokyo 0 2 * * *",
    ],
)
def test_anything_else_is_refused(schedule: str) -> None:
    with pytest.raises(ValidationError, match="schedule"):
        ScheduleSpec.model_validate({**good_schedule(), "schedule": schedule})


@pytest.mark.parametrize(
    "zone", ["Etc/UTC", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"]
)
def test_names_of_time_zones_are_taken(zone: str) -> None:
    spec = ScheduleSpec.model_validate({**good_schedule(), "timeZone": zone})
    assert spec.time_zone == zone


@pytest.mark.parametrize("zone", ["", "Local", "../etc/passwd", "/etc/localtime", "+01:00", "a//b"])
def test_what_names_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="timeZone"):
        ScheduleSpec.model_validate({**good_schedule(), "timeZone": zone})


def test_a_template_is_not_frozen_and_carries_no_mark_of_ours() -> None:
    published = str(llmtrainschedules())
    assert "oldSelf" not in published
    assert MUTABLE not in published


def test_the_expressions_are_written_for_cel() -> None:
    """A backslash would have to be doubled in a string of CEL, and a quote ends it."""
    for rule in OWN_RULES:
        for text in re.findall("'([^']*)'", rule.cel):
            assert "\\" not in text
