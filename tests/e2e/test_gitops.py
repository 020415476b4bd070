"""However a run is applied, and however often: nothing drifts, and the spec stays the user's."""

from __future__ import annotations

import json
from typing import Any

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("tiny_inputs")]
WAYS = (
    ("apply",),
    ("apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller"),
    ("replace",),
)


def owners_of_the_spec(run: dict[str, Any]) -> set[str]:
    """Returns who has written anything but the status."""
    entries = run["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if entry.get("subresource") != "status"}


def test_no_way_of_applying_a_finished_run_changes_it(namespace: str) -> None:
    manifest = cluster.run_manifest(namespace, "kept", {"training": {"maxSteps": 4}})
    text = json.dumps(manifest)
    cluster.apply(manifest)
    assert cluster.wait_finished(namespace, "kept")["phase"] == "Succeeded"
    before = cluster.get("llmtrainrun", namespace, "kept")
    jobs = {job["metadata"]["uid"] for job in cluster.list_of("jobs", namespace)}
    for way in WAYS:
        cluster.kubectl(*way, "-f", "-", stdin=text)
        assert cluster.kubectl("diff", "-f", "-", stdin=text, check=False).returncode == 0, way
        after = cluster.get("llmtrainrun", namespace, "kept")
        assert after["metadata"]["generation"] == before["metadata"]["generation"], way
        assert after["spec"] == before["spec"], way
        for field in ("phase", "attempt", "completionTime"):  # A last report may still come.
            assert after["status"][field] == before["status"][field], way
    assert {job["metadata"]["uid"] for job in cluster.list_of("jobs", namespace)} == jobs


def test_the_operator_writes_nothing_but_the_status(namespace: str) -> None:
    manifest = cluster.run_manifest(namespace, "own", {"training": {"maxSteps": 4}})
    cluster.kubectl(
        "apply", "--server-side", "--field-manager=git", "-f", "-", stdin=json.dumps(manifest)
    )
    cluster.wait_finished(namespace, "own")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "ltr/own", "-n", namespace)
    whole = ("get", "ltr", "own", "-n", namespace, "-o", "json", "--show-managed-fields")
    run = json.loads(cluster.kubectl(*whole).stdout)
    assert owners_of_the_spec(run) == {"git"}
    assert "finalizers" not in run["metadata"]
    assert run["metadata"].get("annotations", {}) == {}
    assert run["metadata"].get("labels", {}) == {}


def test_a_typo_that_was_not_validated_is_dropped_by_the_api_server(namespace: str) -> None:
    manifest = cluster.run_manifest(namespace, "typo", {"suspend": True, "suspnd": True})
    cluster.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(manifest))
    run = cluster.get("llmtrainrun", namespace, "typo")
    assert "suspnd" not in run["spec"]
    cluster.wait_until(
        lambda: cluster.status_of(namespace, "typo").get("phase") == "Suspended", "it is taken"
    )


def test_a_run_without_its_status_finds_itself_finished(namespace: str) -> None:
    """As when it is restored from git or a backup: it does not train again."""
    manifest = cluster.run_manifest(namespace, "again", {"training": {"maxSteps": 4}})
    cluster.apply(manifest)
    cluster.wait_finished(namespace, "again")
    keys = cluster.keys_of("runs", f"{namespace}/again/model/")
    cluster.kubectl("delete", "llmtrainrun", "again", "-n", namespace)
    cluster.apply(manifest)
    assert cluster.wait_finished(namespace, "again")["phase"] == "Succeeded"
    assert cluster.keys_of("runs", f"{namespace}/again/model/") == keys
