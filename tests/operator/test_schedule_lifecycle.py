"""The life of a schedule over a fake cluster."""

from __future__ import annotations

import pytest
from clockwork import SCHEDULE, Clockwork, at, name_at
from world import SPEC

from llmtrain_operator.cache import Cache
from llmtrain_operator.kube import (
    RUNS,
    SCHEDULES,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NamespaceEndsError,
)
from llmtrain_operator.schedule_snapshot import schedule_of
from llmtrain_operator.snapshot import RunKey


@pytest.fixture
def clockwork() -> Clockwork:
    return Clockwork()


async def test_a_new_schedule_says_when_it_goes_off(clockwork: Clockwork) -> None:
    clockwork.apply()
    await clockwork.settle()
    assert clockwork.condition("Ready") == ("True", "Scheduled")
    assert clockwork.condition("Reconciling") == ("False", "UpToDate")
    assert clockwork.condition("Stalled") == ("False", "NotStalled")
    assert clockwork.status.observed_generation == 1
    assert clockwork.status.next_schedule_time == "2026-11-21T12:01:00Z"
    assert clockwork.status.last_schedule_time is None
    assert clockwork.status.active_runs == 0
    assert clockwork.runs == []


async def test_a_run_is_made_of_the_template(clockwork: Clockwork) -> None:
    metadata = {"labels": {"team": "nlp"}, "annotations": {"note": "made by the clock"}}
    uri = "s3://runs/{schedule}/{date}/{run}/{timestamp}/"
    spec = {**SPEC, "output": {"uri": uri}}
    clockwork.apply(runTemplate={"metadata": metadata, "spec": spec})
    await clockwork.until("12:01:00")
    run = clockwork.run(name_at("12:01:00"))
    assert run["metadata"]["labels"] == {"team": "nlp", "llmtrain.dev/schedule": "tick"}
    assert run["metadata"]["annotations"] == {
        "note": "made by the clock",
        "llmtrain.dev/scheduled-time": "2026-11-21T12:01:00Z",
    }
    (owner,) = run["metadata"]["ownerReferences"]
    stored = clockwork.kube.objects["LLMTrainSchedule", "default", "tick"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == (
        "LLMTrainSchedule",
        stored["metadata"]["uid"],
        True,
    )
    assert schedule_of(run) == Clockwork.KEY
    name = name_at("12:01:00")
    assert run["spec"] == {
        **SPEC,
        "output": {"uri": f"s3://runs/tick/2026-11-21/{name}/20261121T120100Z/"},
    }
    assert stored["spec"]["runTemplate"]["spec"]["output"]["uri"] == uri


async def test_the_day_in_a_uri_is_that_of_the_time_zone(clockwork: Clockwork) -> None:
    spec = {**SPEC, "output": {"uri": "s3://runs/{date}/{run}/"}}
    clockwork.apply(timeZone="Pacific/Kiritimati", runTemplate={"spec": spec})
    await clockwork.until("12:01:00")
    uri = clockwork.run(name_at("12:01:00"))["spec"]["output"]["uri"]
    assert uri.startswith("s3://runs/2026-11-22/")


async def test_one_run_each_minute_and_none_besides_another(clockwork: Clockwork) -> None:
    clockwork.apply()
    await clockwork.until("12:01:30")
    assert clockwork.runs == [name_at("12:01:00")]
    assert clockwork.status.active_runs == 1
    await clockwork.until("12:03:30")
    assert clockwork.created == [name_at("12:01:00")]
    assert clockwork.skipped() == [("12:03:00", "RunActive"), ("12:02:00", "RunActive")]
    clockwork.end(name_at("12:01:00"))
    await clockwork.settle()
    assert clockwork.created == [name_at("12:01:00"), name_at("12:03:00")]
    assert clockwork.status.last_successful_time == "2026-11-21T12:03:30Z"
    assert clockwork.skipped() == [("12:02:00", "RunActive")]
    assert await clockwork.events() == ["RunCreated", "TimeSkipped", "RunCreated"]


async def test_a_tick_takes_two_writes(clockwork: Clockwork) -> None:
    clockwork.apply()
    await clockwork.settle()
    clockwork.kube.writes.clear()
    await clockwork.until("12:01:40")
    assert clockwork.kube.writes == [
        f"create LLMTrainRun {name_at('12:01:00')}",
        "patch LLMTrainSchedule/status tick",
    ]


@pytest.mark.parametrize(
    ("schedule", "before", "when"),
    [
        pytest.param("* * * * *", "12:00:59", "12:01:00", id="in the next minute"),
        pytest.param("@weekly", "12:10:29", "12:10:30", id="next week: in ten minutes"),
    ],
)
async def test_it_asks_to_be_looked_at_again(
    clockwork: Clockwork, schedule: str, before: str, when: str
) -> None:
    clockwork.apply(schedule=schedule)
    await clockwork.settle()
    clockwork.kube.now = at(before)
    clockwork.queue.promote()
    assert len(clockwork.queue) == 0
    clockwork.kube.now = at(when)
    clockwork.queue.promote()
    assert len(clockwork.queue) == 1


async def test_nothing_is_written_while_nothing_happens(clockwork: Clockwork) -> None:
    clockwork.apply(schedule="@weekly")
    await clockwork.settle()
    clockwork.kube.writes.clear()
    await clockwork.until("13:00:00")
    await clockwork.restart_operator()
    await clockwork.until("14:00:00")
    assert clockwork.kube.writes == []


async def test_replace_deletes_the_run_that_goes_on(clockwork: Clockwork) -> None:
    clockwork.apply(concurrencyPolicy="Replace")
    await clockwork.until("12:02:10")
    assert clockwork.runs == [name_at("12:02:00")]
    assert clockwork.created == [name_at("12:01:00"), name_at("12:02:00")]
    assert "RunReplaced" in await clockwork.events()


async def test_allow_lets_runs_overlap(clockwork: Clockwork) -> None:
    clockwork.apply(concurrencyPolicy="Allow")
    await clockwork.until("12:03:10")
    assert len(clockwork.runs) == 3
    assert clockwork.status.active_runs == 3


async def test_old_runs_go_when_newer_ones_are_finished(clockwork: Clockwork) -> None:
    clockwork.apply(successfulRunsHistoryLimit=2, failedRunsHistoryLimit=1)
    for minute, phase in enumerate(("Failed", "Succeeded", "Failed", "Succeeded", "Succeeded"), 1):
        await clockwork.until(f"12:0{minute}:05")
        clockwork.end(name_at(f"12:0{minute}:00"), phase)
        await clockwork.settle()
    assert clockwork.runs == [name_at(f"12:0{minute}:00") for minute in (3, 4, 5)]
    assert len(clockwork.created) == 5


async def test_a_suspended_schedule_makes_nothing_and_nothing_is_made_up_for(
    clockwork: Clockwork,
) -> None:
    clockwork.apply(suspend=True)
    await clockwork.until("12:05:30")
    assert clockwork.condition("Ready") == ("True", "Suspended")
    assert clockwork.status.next_schedule_time is None
    clockwork.set_spec(suspend=False)
    await clockwork.settle()
    assert clockwork.created == []
    await clockwork.until("12:06:10")
    assert clockwork.created == [name_at("12:06:00")]


async def test_an_operator_that_was_away_makes_up_for_one_time(clockwork: Clockwork) -> None:
    clockwork.apply()
    await clockwork.settle()
    await clockwork.jump("12:10:20")
    await clockwork.restart_operator()
    await clockwork.settle()
    assert clockwork.created == [name_at("12:10:00")]
    assert clockwork.skipped() == [("12:09:00", "Missed")]


async def test_a_schedule_that_was_made_again_makes_its_own_runs(clockwork: Clockwork) -> None:
    clockwork.apply()
    await clockwork.until("12:01:10")
    clockwork.kube.remove(SCHEDULES, "default", "tick")
    clockwork.kube.remove(RUNS, "default", name_at("12:01:00"))  # As the garbage collector does.
    await clockwork.settle()
    clockwork.apply()
    await clockwork.until("12:02:10")
    assert clockwork.created == [name_at("12:01:00"), name_at("12:02:00")]


async def test_a_foreign_run_in_the_way_is_told_of_and_left_alone(clockwork: Clockwork) -> None:
    name = name_at("12:01:00")
    clockwork.kube.put(RUNS, "default", {"metadata": {"name": name}, "spec": SPEC})
    clockwork.apply()
    await clockwork.until("12:01:20")
    assert clockwork.condition("Ready") == ("False", "RunRefused")
    assert "exists and is not this schedule's: delete it" in clockwork.message()
    assert clockwork.condition("Stalled") == ("False", "NotStalled")
    clockwork.kube.remove(RUNS, "default", name)
    await clockwork.until("12:01:50")
    assert clockwork.created == [name]
    assert clockwork.condition("Ready") == ("True", "Scheduled")


async def test_a_run_is_told_of_though_the_watch_brings_no_news_of_it(
    clockwork: Clockwork,
) -> None:
    clockwork.apply()
    await clockwork.settle()
    clockwork.kube.cache = Cache()  # The answer comes before the event.
    await clockwork.until("12:01:10")
    assert clockwork.told == [RunKey("default", name_at("12:01:00"))]


async def test_a_run_that_the_cache_does_not_know_yet_is_not_made_twice(
    clockwork: Clockwork,
) -> None:
    def exists_already(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "LLMTrainRun"):
            raise AlreadyExistsError("already exists")

    clockwork.apply()
    clockwork.kube.fail = exists_already
    await clockwork.until("12:01:10")
    assert clockwork.condition("Ready") == ("True", "Scheduled"), "there is nothing to tell"
    assert clockwork.status.last_schedule_time is None
    assert clockwork.created == []


async def test_a_quota_is_told_of_and_the_run_made_when_it_can_be(clockwork: Clockwork) -> None:
    def over_quota(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "LLMTrainRun"):
            raise ForbiddenError("exceeded quota: runs")

    clockwork.apply()
    clockwork.kube.fail = over_quota
    await clockwork.until("12:01:20")
    assert clockwork.condition("Ready") == ("False", "RunRefused")
    assert "exceeded quota: runs" in clockwork.message()
    assert clockwork.skipped() == [("12:01:00", "Refused")]
    clockwork.kube.fail = lambda verb, kind, name: None
    await clockwork.until("12:01:50")
    assert clockwork.created == [name_at("12:01:00")]
    assert clockwork.skipped() == []
    assert "RunRefused" in await clockwork.events()


async def test_a_run_that_cannot_be_stalls_the_schedule_until_its_next_time(
    clockwork: Clockwork,
) -> None:
    tries = []

    def invalid(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "LLMTrainRun"):
            tries.append(name)
            raise InvalidError("spec.stage: Unsupported value")

    clockwork.apply()
    clockwork.kube.fail = invalid
    await clockwork.until("12:01:50")
    assert clockwork.condition("Stalled") == ("True", "RunRefused")
    assert tries == [name_at("12:01:00")]
    clockwork.set_spec(jitterSeconds=0)
    await clockwork.settle()
    assert tries == [name_at("12:01:00")] * 2, "a change may have mended it"
    await clockwork.until("12:02:10")
    assert tries[2:] == [name_at("12:02:00")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"timeZone": "Mars/Olympus"}, "timeZone: there is no time zone", id="a zone"),
        pytest.param({"schedule": "0 0 31 4 *"}, "schedule: day-of-month cannot be", id="a day"),
        pytest.param({"schedule": "every day"}, "use minute, hour, day of month", id="the grammar"),
        pytest.param(
            {
                "runTemplate": {
                    **SCHEDULE["runTemplate"],
                    "metadata": {"labels": {"a label": "x"}},
                }
            },
            "runTemplate.metadata.labels: Kubernetes takes no key 'a label'",
            id="the key of a label",
        ),
        pytest.param(
            {
                "runTemplate": {
                    **SCHEDULE["runTemplate"],
                    "metadata": {"labels": {"team": "a b"}},
                }
            },
            "runTemplate.metadata.labels.team: Kubernetes takes no value 'a b'",
            id="the value of a label",
        ),
        pytest.param(
            {
                "runTemplate": {
                    "spec": {
                        **SCHEDULE["runTemplate"]["spec"],
                        "workers": {"podTemplate": {"spec": {"restartPolicy": "Always"}}},
                    }
                }
            },
            "restartPolicy",
            id="a pod template",
        ),
    ],
)
async def test_a_spec_that_cannot_be_carried_out_stalls(
    clockwork: Clockwork, changes: dict[str, object], message: str
) -> None:
    clockwork.apply(**changes)
    await clockwork.until("12:02:10")
    assert clockwork.condition("Ready") == ("False", "InvalidSpec")
    assert clockwork.condition("Stalled") == ("True", "InvalidSpec")
    assert message in clockwork.message()
    assert clockwork.created == []
    mended = {"metadata": None, "spec": {"workers": {"podTemplate": None}}}
    clockwork.set_spec(schedule="* * * * *", timeZone="Etc/UTC", runTemplate=mended)
    await clockwork.until("12:03:10")
    assert clockwork.condition("Ready") == ("True", "Scheduled")


async def test_a_status_that_somebody_changed_meanwhile_is_written_later(
    clockwork: Clockwork,
) -> None:
    def conflict(verb: str, kind: str, name: str) -> None:
        if verb == "patch":
            raise ConflictError("the object has been modified")

    clockwork.apply()
    await clockwork.settle()
    clockwork.kube.fail = conflict
    await clockwork.until("12:01:10")
    assert clockwork.created == [name_at("12:01:00")]
    assert clockwork.status.last_schedule_time is None
    clockwork.kube.fail = lambda verb, kind, name: None
    await clockwork.settle()
    assert clockwork.created == [name_at("12:01:00")]
    assert clockwork.status.last_schedule_time == "2026-11-21T12:01:00Z"


async def test_a_namespace_that_ends_is_left_alone(clockwork: Clockwork) -> None:
    def ends(verb: str, kind: str, name: str) -> None:
        if verb == "create":
            raise NamespaceEndsError("it is being terminated")

    clockwork.apply()
    await clockwork.settle()
    clockwork.kube.fail = ends
    with pytest.raises(NamespaceEndsError):
        await clockwork.until("12:01:10")
    assert clockwork.condition("Ready") == ("True", "Scheduled")


async def test_a_schedule_that_is_gone_is_forgotten(clockwork: Clockwork) -> None:
    clockwork.apply()
    await clockwork.settle()
    clockwork.kube.remove(SCHEDULES, "default", "tick")
    await clockwork.until("12:02:10")
    assert clockwork.created == []
    clockwork.reconciler.forget_all_but(set())
