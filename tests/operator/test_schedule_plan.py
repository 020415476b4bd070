"""Plans for schedules, one situation at a time."""

from __future__ import annotations

from typing import Any

import pytest
from clockwork import BEGIN, SCHEDULE, at

from llmtrain_api.schedule import ScheduleStatus
from llmtrain_operator.schedule_acceptance import accept_schedule
from llmtrain_operator.schedule_plan import SchedulePlan, plan_schedule
from llmtrain_operator.schedule_snapshot import (
    RunRefusal,
    ScheduleKey,
    ScheduleSnapshot,
    ScheduleView,
)
from llmtrain_operator.snapshot import RunKey, RunView, format_time

HOURLY = "0 * * * *"


def run(time: str, phase: str = "Running", *, deleting: bool = False, name: str = "") -> RunView:
    """Returns the run that was made for a time of the day; it ended half an hour later."""
    made = at(time)
    status: dict[str, Any] = {"phase": phase}
    if phase in ("Succeeded", "Failed"):
        status["conditions"] = [{"type": "Finished", "status": "True"}]
        status["completionTime"] = format_time(made + 1800)
    return RunView(
        key=RunKey("default", name or f"hourly-{int(made // 60)}"),
        uid=f"uid-{time}-{phase}",
        generation=1,
        version=1,
        deleting=deleting,
        spec={},
        status=status,
        created=made,
        owner_uid="schedule-uid",
    )


def plan(
    now: str,
    *runs: RunView,
    status: ScheduleStatus | None = None,
    refusal: RunRefusal | None = None,
    created: float = BEGIN,
    **changes: Any,
) -> SchedulePlan:
    """Returns the plan at a time of the day for an hourly schedule made at 12:00:30."""
    spec = {**SCHEDULE, "schedule": HOURLY, **changes}
    view = ScheduleView(
        key=ScheduleKey("default", "hourly"),
        uid="schedule-uid",
        generation=1,
        version=1,
        created=created,
        deleting=False,
        spec=spec,
        status=status.to_dict() if status else {},
    )
    return plan_schedule(
        ScheduleSnapshot(
            schedule=view,
            spec=accept_schedule(spec),
            refusal_of_spec="",
            now=at(now),
            runs=runs,
            refusal=refusal,
        )
    )


def made(todo: SchedulePlan) -> str:
    """Returns the time of day for which a plan makes a run; nothing for none."""
    return format_time(todo.create.time)[11:16] if todo.create else ""


def status_of(todo: SchedulePlan) -> ScheduleStatus:
    assert todo.status is not None
    return todo.status


def skipped(todo: SchedulePlan) -> list[tuple[str, str]]:
    return [(one.time[11:16], one.reason) for one in status_of(todo).skipped]


@pytest.mark.parametrize(
    ("now", "runs", "changes", "expected"),
    [
        pytest.param("12:59:59", [], {}, "", id="not yet"),
        pytest.param("13:00:00", [], {}, "13:00", id="on time"),
        pytest.param("13:00:00", [run("13:00:00")], {}, "", id="made already"),
        pytest.param(
            "13:40:00", [run("13:00:00", "Succeeded")], {}, "", id="made and finished already"
        ),
        pytest.param("17:30:00", [], {}, "17:00", id="of several that were missed, the latest"),
        pytest.param("14:00:00", [run("13:00:00")], {}, "", id="Forbid waits for the other run"),
        pytest.param(
            "14:00:00", [run("13:00:00", "Failed")], {}, "14:00", id="one that failed is over"
        ),
        pytest.param(
            "14:00:00",
            [run("13:00:00", "Suspended")],
            {},
            "",
            id="a suspended run is not over",
        ),
        pytest.param(
            "14:00:00",
            [run("13:20:00", name="hourly-mabc")],
            {},
            "",
            id="one that a person made counts",
        ),
        pytest.param(
            "14:00:00", [run("13:00:00")], {"concurrencyPolicy": "Allow"}, "14:00", id="Allow"
        ),
        pytest.param(
            "14:00:00", [run("13:00:00")], {"concurrencyPolicy": "Replace"}, "14:00", id="Replace"
        ),
        pytest.param("14:00:00", [], {"suspend": True}, "", id="suspended"),
        pytest.param(
            "13:01:00", [], {"startingDeadlineSeconds": 60}, "13:00", id="within the deadline"
        ),
        pytest.param("13:01:01", [], {"startingDeadlineSeconds": 60}, "", id="after the deadline"),
        pytest.param(
            "13:00:00", [], {"schedule": "0 14 * * *", "timeZone": "Europe/Berlin"}, "13:00",
            id="in another time zone",
        ),
        pytest.param("13:00:00", [], {"schedule": "@hourly"}, "13:00", id="by a word"),
    ],
)  # fmt: skip
def test_what_is_made(
    now: str, runs: list[RunView], changes: dict[str, Any], expected: str
) -> None:
    assert made(plan(now, *runs, **changes)) == expected


def test_the_run_of_a_time_is_named_for_it() -> None:
    todo = plan("13:00:07")
    assert todo.create is not None
    assert todo.create.name == f"hourly-{int(at('13:00:00') // 60)}"
    assert status_of(todo).last_schedule_time == "2026-11-21T13:00:00Z"
    assert [one.name for one in status_of(todo).active] == [todo.create.name]


def test_replace_deletes_all_that_are_not_finished_and_not_going_already() -> None:
    runs = (run("12:00:00", "Failed"), run("13:00:00"), run("13:30:00", deleting=True))
    todo = plan("14:00:00", *runs, concurrencyPolicy="Replace")
    assert todo.replace == (runs[1],)
    assert status_of(todo).active_runs == 1


@pytest.mark.parametrize(
    ("now", "runs", "changes", "expected"),
    [
        pytest.param("13:00:00", [], {}, [], id="nothing"),
        pytest.param(
            "14:00:00", [run("13:00:00")], {}, [("14:00", "RunActive")], id="a run is not finished"
        ),
        pytest.param("14:30:00", [], {}, [("13:00", "Missed")], id="one before the latest"),
        pytest.param(
            "13:20:00",
            [],
            {"startingDeadlineSeconds": 600},
            [("13:00", "TooLate")],
            id="the deadline is over",
        ),
        pytest.param(
            "15:20:00",
            [],
            {"startingDeadlineSeconds": 600},
            [("15:00", "TooLate"), ("14:00", "Missed")],
            id="and others before it",
        ),
    ],
)
def test_what_is_skipped(
    now: str, runs: list[RunView], changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert skipped(plan(now, *runs, **changes)) == expected


def test_a_time_that_waited_for_a_run_is_made_up_for_and_not_skipped_any_more() -> None:
    waiting = plan("14:00:00", run("13:00:00"))
    assert skipped(waiting) == [("14:00", "RunActive")]
    ended = plan("14:10:00", run("13:00:00", "Succeeded"), status=waiting.status)
    assert made(ended) == "14:00"
    assert skipped(ended) == []


def test_of_the_times_that_waited_for_a_run_only_the_latest_is_made_up_for() -> None:
    status = None
    for now in ("14:00:00", "15:00:00", "16:00:00"):
        status = plan(now, run("13:00:00"), status=status).status
    ended = plan("16:05:00", run("13:00:00", "Succeeded"), status=status)
    assert made(ended) == "16:00"
    assert skipped(ended) == [("15:00", "RunActive"), ("14:00", "RunActive")]


def test_a_time_that_waited_in_vain_stays_skipped_for_its_first_reason() -> None:
    status = plan("14:00:00", run("13:00:00"), startingDeadlineSeconds=60).status
    later = plan(
        "14:30:00", run("13:00:00", "Succeeded"), status=status, startingDeadlineSeconds=60
    )
    assert made(later) == ""
    assert skipped(later) == [("14:00", "RunActive")]


def test_a_long_absence_is_told_in_one_entry() -> None:
    (entry,) = status_of(plan("23:30:00")).skipped
    assert (entry.time[11:16], entry.reason) == ("22:00", "Missed")
    assert entry.message.endswith("; so did 9 before it")


def test_an_absence_of_months_is_counted_up_to_a_hundred() -> None:
    todo = plan("23:30:00", created=BEGIN - 90 * 86_400)
    assert made(todo) == "23:00"
    assert "more than 100 before it" in status_of(todo).skipped[0].message


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"schedule": "*/5 * * * *"}, id="another schedule"),
        pytest.param({"timeZone": "Asia/Kolkata"}, id="another time zone"),
        pytest.param({"suspend": True}, id="suspending"),
    ],
)
def test_a_change_never_works_backward(changes: dict[str, Any]) -> None:
    status = plan("12:59:00").status
    changed = plan("13:30:10", status=status, **changes)
    assert made(changed) == ""
    assert status_of(changed).basis is not None
    assert status_of(changed).basis.since == "2026-11-21T13:30:10Z"  # type: ignore[union-attr]
    back = plan("13:31:10", status=changed.status)
    assert made(back) == "", "nor does taking it back"


def test_a_change_of_anything_else_loses_no_time() -> None:
    status = plan("12:59:00").status
    assert made(plan("13:00:10", status=status, jitterSeconds=0, failedRunsHistoryLimit=9)) == (
        "13:00"
    )


def test_a_lost_status_does_not_make_the_newest_run_again() -> None:
    todo = plan("13:30:00", run("13:00:00", "Succeeded"))
    assert made(todo) == ""
    assert status_of(todo).last_schedule_time == "2026-11-21T13:00:00Z"


def test_a_clock_that_was_set_back_makes_nothing_again() -> None:
    status = plan("14:00:00").status
    assert made(plan("13:10:00", status=status)) == ""


def test_a_delay_moves_the_run_and_not_its_name() -> None:
    plans = [plan(f"13:{minute:02}:00", jitterSeconds=1800) for minute in range(31)]
    first = next(number for number, todo in enumerate(plans) if todo.create)
    assert first > 0
    assert {made(todo) for todo in plans[first:]} == {"13:00"}
    assert plans[first].create is not None
    due = format_time(plans[first].create.due)  # type: ignore[union-attr]
    assert {status_of(todo).next_schedule_time for todo in plans[:first]} == {due}


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        pytest.param("12:59:30", 30.0, id="until the next time"),
        pytest.param("12:05:00", 600.0, id="at most ten minutes, as clocks are set"),
    ],
)
def test_when_to_look_again(now: str, seconds: float) -> None:
    assert plan(now).look_again == seconds


def test_what_is_told_of_the_next_time() -> None:
    assert status_of(plan("12:05:00")).next_schedule_time == "2026-11-21T13:00:00Z"
    assert status_of(plan("13:00:00")).next_schedule_time == "2026-11-21T14:00:00Z"
    assert status_of(plan("12:05:00", suspend=True)).next_schedule_time is None


def test_a_plan_is_the_same_again() -> None:
    for now in ("12:05:00", "13:00:00", "17:30:00"):
        todo = plan(now, run("12:30:00", "Failed"), run("12:40:00"))
        again = plan(now, run("12:30:00", "Failed"), run("12:40:00"), status=todo.status)
        assert again == todo


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        pytest.param(
            [run(f"0{hour}:00:00", "Succeeded") for hour in range(6)],
            {"03", "04", "05"},
            id="three that succeeded",
        ),
        pytest.param(
            [run(f"0{hour}:00:00", "Failed") for hour in range(4)], {"03"}, id="one that failed"
        ),
        pytest.param(
            [run(f"0{hour}:00:00") for hour in range(4)], {"00", "01", "02", "03"}, id="all active"
        ),
        pytest.param(
            [run("00:00:00", "Failed"), *(run(f"0{h}:00:00", "Succeeded") for h in range(1, 4))],
            {"00", "01", "02", "03"},
            id="each kind by its own limit",
        ),
    ],
)
def test_which_runs_are_kept(runs: list[RunView], kept: set[str]) -> None:
    beyond = plan("12:30:00", *runs).prune
    hours = {format_time(one.created)[11:13] for one in runs if one not in beyond}
    assert hours == kept


def test_history_limits_of_zero_keep_nothing() -> None:
    runs = [run("11:00:00", "Succeeded"), run("12:00:00", "Failed")]
    todo = plan("12:30:00", *runs, successfulRunsHistoryLimit=0, failedRunsHistoryLimit=0)
    assert todo.prune == tuple(runs)
    assert status_of(todo).last_successful_time == "2026-11-21T11:30:00Z", "it is told first"


@pytest.mark.parametrize(("terminal", "again"), [(False, "13:00"), (True, "")])
def test_a_refused_run_is_told_of_and_made_later(terminal: bool, again: str) -> None:
    refusal = RunRefusal(
        time=at("13:00:00"),
        generation=1,
        message="run hourly-1 cannot be made: exceeded quota",
        terminal=terminal,
        retry_at=at("13:00:10"),
    )
    waiting = plan("13:00:01", refusal=refusal)
    assert made(waiting) == ""
    assert skipped(waiting) == [("13:00", "Refused")]
    ready, _, stalled = status_of(waiting).conditions
    assert (ready.status, ready.reason) == ("False", "RunRefused")
    assert stalled.status == str(terminal)
    assert made(plan("13:00:10", refusal=refusal, status=waiting.status)) == again
    assert made(plan("14:00:00", refusal=refusal, status=waiting.status)) == "14:00"


def test_a_suspended_schedule_is_ready() -> None:
    """Argo CD and Flux take it for healthy: it is as git says."""
    ready, reconciling, stalled = status_of(plan("13:00:00", suspend=True)).conditions
    assert (ready.status, ready.reason) == ("True", "Suspended")
    assert (reconciling.status, stalled.status) == ("False", "False")


def test_conditions_keep_their_time_while_they_hold() -> None:
    first = plan("12:10:00")
    later = plan("13:00:00", status=first.status)
    assert {c.last_transition_time for c in status_of(later).conditions} == {"2026-11-21T12:10:00Z"}


def test_a_schedule_that_is_being_deleted_is_left_alone() -> None:
    view = ScheduleView(
        key=ScheduleKey("default", "hourly"),
        uid="schedule-uid",
        generation=1,
        version=1,
        created=BEGIN,
        deleting=True,
        spec={},
        status={},
    )
    snapshot = ScheduleSnapshot(
        schedule=view, spec=accept_schedule(SCHEDULE), refusal_of_spec="", now=at("13:00:00")
    )
    assert plan_schedule(snapshot) == SchedulePlan()
