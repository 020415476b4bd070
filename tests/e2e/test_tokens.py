"""Tokens are made once: by a Job of their own, or by one node for the others, and kept in S3."""

from __future__ import annotations

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("tiny_inputs")]

SHORT = {"training": {"maxSteps": 4}, "workers": {"nodes": 2}}


def manifests(uri: str) -> list[str]:
    """Returns the keys of the manifests of tokens under a place in the bucket `runs`."""
    return [key for key in cluster.keys_of("runs", uri) if key.endswith("/manifest.json")]


def test_a_job_of_its_own_makes_the_tokens_before_the_gang(namespace: str) -> None:
    changes = {**SHORT, "prepare": {"job": {"resources": {"limits": {"memory": "2Gi"}}}}}
    cluster.apply(cluster.run_manifest(namespace, "first", changes))
    cluster.wait_until(
        lambda: cluster.status_of(namespace, "first").get("phase") == "Preparing", "preparing"
    )
    status = cluster.wait_finished(namespace, "first")
    assert status["phase"] == "Succeeded", status
    assert status["prepared"] is True
    prepared, trained = status["attempts"]
    assert (prepared["job"], prepared["task"], prepared["outcome"]) == (
        "first-p1",
        "Prepare",
        "Prepared",
    )
    assert (trained["job"], trained["outcome"]) == ("first-a2", "Succeeded")
    assert len(manifests(f"{namespace}/first/tokens/")) == 1
    logs = cluster.read_logs(namespace, "first")
    assert "the tokens are there from before" in logs
    assert "waiting for node 0 to turn the rows into tokens" not in logs


def test_the_next_run_begins_with_the_tokens_of_the_one_before(namespace: str) -> None:
    shared = {"prepare": {"cacheUri": f"s3://runs/{namespace}/shared/"}}
    cluster.apply(cluster.run_manifest(namespace, "one", {**SHORT, **shared}))
    assert cluster.wait_finished(namespace, "one")["phase"] == "Succeeded"
    assert "the tokens are there from before" not in cluster.read_logs(namespace, "one")
    other = {**SHORT, **shared, "training": {"maxSteps": 4, "learningRate": 1.0e-4}}
    cluster.apply(cluster.run_manifest(namespace, "two", other))
    assert cluster.wait_finished(namespace, "two")["phase"] == "Succeeded"
    assert cluster.read_logs(namespace, "two").count("the tokens are there from before") == 2
    assert len(manifests(f"{namespace}/shared/")) == 1
