"""What the cache keeps, replaces and forgets."""

from __future__ import annotations

from typing import Any

import pytest

from llmtrain_operator.auth import Caller
from llmtrain_operator.cache import Cache
from llmtrain_operator.kopf_bridge import on_job_event, on_pod_event, on_run_event
from llmtrain_operator.snapshot import RunKey

KEY = RunKey("default", "one")
LABELS = {"llmtrain.dev/run": "one", "llmtrain.dev/attempt": "1"}


def body(name: str, uid: str, version: int, owner: str = "", **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "labels": LABELS,
        "creationTimestamp": "2027-01-15T08:00:00Z",
    }
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {"metadata": metadata, **fields}


def a_run(version: int = 1, uid: str = "run-1", **status: Any) -> dict[str, Any]:
    return body("one", uid, version, spec={}, status=status)


def a_job(version: int = 2, owner: str = "run-1") -> dict[str, Any]:
    return body("one-a1", "job-1", version, owner)


def a_pod(version: int = 3, **status: Any) -> dict[str, Any]:
    return body("one-a1-0-x", "pod-1", version, "job-1", status=status)


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.set_run(a_run())
    cache.set_job(a_job())
    cache.set_pod(a_pod())
    return cache


def test_each_object_names_its_run(cache: Cache) -> None:
    assert cache.set_run(a_run(9)) == KEY
    assert cache.set_job(a_job(9)) == KEY
    assert cache.set_pod(a_pod(9)) == KEY
    assert cache.remove_pod("pod-1") == KEY
    assert cache.remove_job("job-1") == KEY


def test_what_is_known_already_is_nothing_new(cache: Cache) -> None:
    assert cache.set_run(a_run()) is None
    assert cache.set_job(a_job()) is None
    assert cache.set_pod(a_pod()) is None


def test_an_older_version_changes_nothing(cache: Cache) -> None:
    cache.set_run(a_run(5, phase="Running"))
    cache.set_run(a_run(4, phase="Starting"))
    assert cache.runs[KEY].status == {"phase": "Running"}
    cache.set_pod(a_pod(9, phase="Running"))
    cache.set_pod(a_pod(8, phase="Pending"))
    assert cache.pods_of(KEY)[0].phase == "Running"


def test_a_run_that_was_made_again_survives_the_end_of_the_old_one(cache: Cache) -> None:
    cache.set_run(a_run(9, uid="run-2"))
    on_run_event(cache, True, a_run(8, uid="run-1"))
    assert cache.runs[KEY].uid == "run-2"


def test_a_pod_that_is_gone_stays_for_its_last_words(cache: Cache) -> None:
    last = a_pod(9, phase="Failed")
    assert on_pod_event(cache, True, last) == KEY
    pod = cache.pods_of(KEY)[0]
    assert (pod.gone, pod.phase) == (True, "Failed")
    cache.drop_gone_pods(KEY, keep_job="job-1")
    assert len(cache.pods_of(KEY)) == 1
    cache.drop_gone_pods(KEY)
    assert cache.pods_of(KEY) == ()


def test_nothing_is_left_of_a_run_that_is_gone(cache: Cache) -> None:
    on_pod_event(cache, True, a_pod(9))
    on_run_event(cache, True, a_run(9))
    on_job_event(cache, True, a_job(9))
    assert (cache.runs, cache.jobs_of(KEY), cache.pods_of(KEY)) == ({}, (), ())
    late = a_pod(10)
    on_pod_event(cache, True, late)
    assert cache.pods_of(KEY) == ()


def test_an_unknown_object_that_goes_is_nothing_new(cache: Cache) -> None:
    assert cache.remove_job("unknown") is None
    assert cache.remove_pod("unknown") is None


def test_a_list_finds_what_a_watch_missed(cache: Cache) -> None:
    assert cache.remove_what_is_not_in({"run-1"}, {"job-1"}, {"pod-1"}, 10) == set()
    assert cache.remove_what_is_not_in({"run-1"}, set(), set(), 10) == {KEY}
    assert cache.jobs_of(KEY) == ()
    assert cache.pods_of(KEY)[0].gone
    assert cache.remove_what_is_not_in(set(), set(), set(), 10) == {KEY}
    assert cache.runs == {}


def test_what_was_made_after_a_list_is_not_missed(cache: Cache) -> None:
    cache.set_run(a_run(11))
    cache.set_job(a_job(12))
    cache.set_pod(a_pod(13))
    assert cache.remove_what_is_not_in(set(), set(), set(), 10) == set()
    assert KEY in cache.runs


@pytest.mark.parametrize(
    ("namespace", "name", "uid", "found"),
    [
        pytest.param("default", "one-a1-0-x", "pod-1", True, id="a pod of the run"),
        pytest.param("other", "one-a1-0-x", "pod-1", False, id="another namespace"),
        pytest.param("default", "another", "pod-1", False, id="another name"),
        pytest.param("default", "one-a1-0-x", "pod-2", False, id="another uid"),
    ],
)
def test_the_run_of_a_pod(cache: Cache, namespace: str, name: str, uid: str, found: bool) -> None:
    expected = Caller("default", "one", "run-1", 1, "one-a1-0-x") if found else None
    assert cache.run_of_pod(namespace, name, uid) == expected


def test_a_pod_whose_job_another_run_owns_is_of_no_run(cache: Cache) -> None:
    cache.set_job(a_job(9, owner="run-0"))
    assert cache.run_of_pod("default", "one-a1-0-x", "pod-1") is None


def test_the_status_vouches_for_a_pod_that_outlives_its_job(cache: Cache) -> None:
    cache.remove_job("job-1")
    assert cache.run_of_pod("default", "one-a1-0-x", "pod-1") is None
    cache.set_run(a_run(9, attempts=[{"number": 1, "jobUid": "job-1"}]))
    assert cache.run_of_pod("default", "one-a1-0-x", "pod-1") is not None


def test_a_pod_that_is_gone_is_of_no_run(cache: Cache) -> None:
    cache.remove_pod("pod-1")
    assert cache.run_of_pod("default", "one-a1-0-x", "pod-1") is None


def test_runs_are_counted_by_phase(cache: Cache) -> None:
    assert cache.phases() == {"Pending": 1}
    cache.set_run(a_run(9, phase="Running"))
    assert cache.phases() == {"Running": 1}


def test_what_was_removed_does_not_come_back_by_a_list_that_is_late(cache: Cache) -> None:
    cache.remove_job("job-1")
    cache.remove_pod("pod-1")
    cache.set_job(a_job(9))
    cache.set_pod(a_pod(9, phase="Running"))
    assert cache.jobs_of(KEY) == ()
    assert [(pod.gone, pod.phase) for pod in cache.pods_of(KEY)] == [(True, "Running")]
    cache.drop_gone_pods(KEY)
    cache.remove_run(KEY, "run-1")
    cache.set_run(a_run(9))
    cache.set_pod(a_pod(10))
    assert cache.pods_of(KEY) == ()
    assert cache.runs == {}


def a_follower(version: int, of: str, uid: str = "follower") -> dict[str, Any]:
    spec = {"model": {"fromRun": {"name": of}}, "tokenizer": {"uri": "s3://runs/tok/model/"}}
    return body("two", uid, version, spec=spec)


def test_followers_are_known_by_the_run_that_they_name_there_or_not(cache: Cache) -> None:
    two, missing = RunKey("default", "two"), RunKey("default", "missing")
    cache.set_run(a_follower(11, "one"))
    assert cache.followers_of(KEY) == {two}
    cache.remove_run(KEY, "run-1")
    assert cache.followers_of(KEY) == {two}, "one that is gone may come again"
    cache.set_run(a_follower(12, "missing"))
    assert cache.followers_of(KEY) == set()
    assert cache.followers_of(missing) == {two}
    cache.set_run(a_follower(13, "one", uid="another"))
    assert cache.followers_of(KEY) == {two}
    assert cache.followers_of(missing) == set()
    cache.remove_run(two, "follower")
    assert cache.followers_of(KEY) == {two}, "another run has its name by now"
    cache.remove_run(two, "another")
    assert cache.followers_of(KEY) == set()
