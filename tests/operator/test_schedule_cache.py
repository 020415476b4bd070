"""What the cache and the lists know of schedules and of the runs that they own."""

from __future__ import annotations

from typing import Any, cast

from clockwork import SCHEDULE
from cluster_fake import FakeKube

from llmtrain_operator.cache import Cache
from llmtrain_operator.changes import Told
from llmtrain_operator.kopf_bridge import on_run_event, on_schedule_event
from llmtrain_operator.kube import SCHEDULES, Kube
from llmtrain_operator.reasons import EventReason
from llmtrain_operator.recorder import Recorder
from llmtrain_operator.resync import read_everything
from llmtrain_operator.schedule_snapshot import ScheduleKey, schedule_of

KEY = ScheduleKey("default", "tick")


def body(name: str, uid: str, version: int, owner: str = "", **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2027-01-15T08:00:00Z",
    }
    if owner:
        reference = {"kind": "LLMTrainSchedule", "name": "tick", "uid": owner, "controller": True}
        metadata["ownerReferences"] = [reference]
    return {"metadata": metadata, "spec": {}, **fields}


def runs_of(cache: Cache, uid: str = "schedule-1") -> list[str]:
    return [run.key.name for run in cache.runs_of_schedule(uid)]


def test_a_schedule_is_replaced_by_a_newer_version_only() -> None:
    cache = Cache()
    assert cache.set_schedule(body("tick", "schedule-1", 5)) == KEY
    assert cache.set_schedule(body("tick", "schedule-1", 5)) is None
    assert cache.set_schedule(body("tick", "schedule-1", 4)) is None
    assert cache.set_schedule(body("tick", "schedule-1", 6)) == KEY


def test_a_schedule_that_was_made_again_survives_the_end_of_the_old_one() -> None:
    cache = Cache()
    cache.set_schedule(body("tick", "schedule-1", 5))
    cache.set_schedule(body("tick", "schedule-2", 9))
    assert on_schedule_event(cache, True, body("tick", "schedule-1", 8)) == KEY
    assert cache.schedules[KEY].uid == "schedule-2"
    assert cache.set_schedule(body("tick", "schedule-1", 10)) is None, "it is gone"


def test_the_runs_of_a_schedule_are_known_by_its_uid() -> None:
    cache = Cache()
    cache.set_run(body("tick-2", "run-2", 2, "schedule-1"))
    cache.set_run(body("tick-1", "run-1", 3, "schedule-1"))
    cache.set_run(body("other", "run-3", 4, "schedule-2"))
    cache.set_run(body("free", "run-4", 5))
    assert runs_of(cache) == ["tick-1", "tick-2"]
    cache.set_run(body("tick-1", "run-1", 6, "schedule-1"))
    assert runs_of(cache) == ["tick-1", "tick-2"]
    on_run_event(cache, True, body("tick-1", "run-1", 7, "schedule-1"))
    assert runs_of(cache) == ["tick-2"]
    cache.set_run(body("tick-2", "run-5", 8))  # Made again by a person, under the same name.
    assert runs_of(cache) == []


def test_a_run_names_the_schedule_that_owns_it() -> None:
    run = body("tick-1", "run-1", 1, "schedule-1")
    assert schedule_of(run) == KEY
    run["metadata"]["ownerReferences"][0]["controller"] = False
    assert schedule_of(run) is None
    assert schedule_of(body("free", "run-2", 1)) is None


def test_schedules_are_counted_by_what_they_say() -> None:
    cache = Cache()
    said = {"conditions": [{"type": "Ready", "status": "False"}]}
    cache.set_schedule(body("new", "schedule-1", 1))
    cache.set_schedule(body("broken", "schedule-2", 2, status=said))
    assert cache.ready_schedules() == {"True": 0, "False": 1, "Unknown": 1}


async def test_a_list_finds_schedules_and_those_that_are_gone() -> None:
    kube, cache = FakeKube(Cache()), Cache()
    for name in ("a", "b"):
        kube.put(SCHEDULES, "default", {"metadata": {"name": name}, "spec": SCHEDULE})
    await read_everything(cast("Kube", kube), cache, ())
    assert [key.name for key in cache.schedules] == ["a", "b"]
    kube.remove(SCHEDULES, "default", "a")
    await read_everything(cast("Kube", kube), cache, ())
    assert [key.name for key in cache.schedules] == ["b"]


async def test_an_event_is_about_the_schedule() -> None:
    kube, cache = FakeKube(Cache()), Cache()
    cache.set_schedule(body("tick", "schedule-1", 5))
    recorder = Recorder(cast("Kube", kube), lambda: kube.now)
    await recorder.write(cache.schedules[KEY], Told(EventReason.RUN_CREATED, "Run x is made."))
    (name,) = kube.names("Event")
    involved = kube.objects["Event", "default", name]["involvedObject"]
    assert (involved["kind"], involved["uid"]) == ("LLMTrainSchedule", "schedule-1")
