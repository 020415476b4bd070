"""Deleting, applying again, suspending, retrying: each does what a user expects, and no more."""

from __future__ import annotations

import json
from typing import Any

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("tiny_inputs")]
LONG: dict[str, Any] = {"training": {"maxSteps": 240}, "checkpoint": {"everySteps": 10}}


def _patch(namespace: str, name: str, spec: dict[str, Any]) -> None:
    body = json.dumps({"spec": spec})
    cluster.kubectl("patch", "ltr", name, "-n", namespace, "--type=merge", "-p", body)


def test_a_deleted_run_stops_and_resumes_when_it_is_applied_again(namespace: str) -> None:
    manifest = cluster.run_manifest(namespace, "again", LONG)
    cluster.apply(manifest)
    cluster.wait_for_checkpoint(namespace, "again")
    cluster.kubectl("delete", "ltr", "again", "-n", namespace)
    cluster.wait_until(
        lambda: not cluster.list_of("pods", namespace), "the pods are gone", seconds=45
    )
    for kind in ("jobs", "services", "configmaps"):
        left = [o["metadata"]["name"] for o in cluster.list_of(kind, namespace, "llmtrain.dev/run")]
        assert left == [], kind
    keys = cluster.keys_of("runs", f"{namespace}/again/")
    last = max(key for key in keys if "/attempts/1/logs/node-0." in key)
    log = cluster.s3_client().get_object(Bucket="runs", Key=last)["Body"].read().decode()
    assert "stop" in log.lower(), "the last words are in storage"
    assert any("/checkpoints/" in key for key in keys)

    cluster.apply(manifest)
    status = cluster.wait_finished(namespace, "again", 400)
    assert status["phase"] == "Succeeded"
    assert "begins from checkpoint" in cluster.read_logs(namespace, "again")
    finished = cluster.keys_of("runs", f"{namespace}/again/model/")

    cluster.kubectl("delete", "ltr", "again", "-n", namespace)
    cluster.wait_until(lambda: not cluster.list_of("pods", namespace), "gone", seconds=45)
    cluster.apply(manifest)
    status = cluster.wait_finished(namespace, "again", 120)
    assert status["phase"] == "Succeeded"
    assert cluster.keys_of("runs", f"{namespace}/again/model/") == finished
    assert "already trained" in cluster.read_logs(namespace, "again")


def test_a_suspended_run_frees_its_pods_and_goes_on_later(namespace: str) -> None:
    cluster.apply(cluster.run_manifest(namespace, "pause", LONG))
    cluster.wait_for_checkpoint(namespace, "pause")
    _patch(namespace, "pause", {"suspend": True})
    cluster.wait_until(lambda: not cluster.list_of("pods", namespace), "pods gone", seconds=60)
    cluster.wait_until(
        lambda: cluster.status_of(namespace, "pause").get("phase") == "Suspended", "suspended"
    )
    status = cluster.status_of(namespace, "pause")
    assert cluster.condition(status, "Suspended")["status"] == "True"
    assert cluster.condition(status, "Reconciling")["status"] == "False"
    _patch(namespace, "pause", {"suspend": False})
    status = cluster.wait_finished(namespace, "pause", 400)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
    assert status.get("restarts", 0) == 0


def test_a_failed_run_is_tried_again_when_retry_is_raised(namespace: str) -> None:
    uri = f"s3://data/{namespace}/rows.jsonl"
    changes = {
        "datasets": [{"uri": uri, "format": "Alpaca"}],
        "training": {"maxSteps": 4},
    }
    cluster.apply(cluster.run_manifest(namespace, "retry", changes))
    status = cluster.wait_finished(namespace, "retry")
    assert (status["phase"], status["attempt"]) == ("Failed", 1)
    body = cluster.s3_client().get_object(Bucket="data", Key="tiny/train.jsonl")["Body"].read()
    cluster.s3_client().put_object(Bucket="data", Key=f"{namespace}/rows.jsonl", Body=body)
    _patch(namespace, "retry", {"retry": 1})
    cluster.wait_until(
        lambda: cluster.status_of(namespace, "retry").get("attempt") == 2, "a second attempt"
    )
    status = cluster.wait_finished(namespace, "retry")
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)


def test_the_jobs_of_a_finished_run_go_after_its_ttl_and_the_run_stays(namespace: str) -> None:
    changes = {"training": {"maxSteps": 2}, "ttlSecondsAfterFinished": 5}
    cluster.apply(cluster.run_manifest(namespace, "brief", changes))
    cluster.wait_finished(namespace, "brief")
    cluster.wait_until(lambda: not cluster.list_of("jobs", namespace), "Jobs gone", seconds=60)
    status = cluster.status_of(namespace, "brief")
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)


def test_applying_twice_changes_nothing(namespace: str) -> None:
    manifest = cluster.run_manifest(namespace, "twice", {"training": {"maxSteps": 4}})
    cluster.apply(manifest)
    cluster.wait_finished(namespace, "twice")
    before = cluster.get("ltr", namespace, "twice")
    cluster.apply(manifest)
    after = cluster.get("ltr", namespace, "twice")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert set(after["metadata"].get("annotations", {})) == {
        "kubectl.kubernetes.io/last-applied-configuration"
    }
    assert "finalizers" not in after["metadata"]
