"""What happens to a run when a part of the system dies under it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import cluster
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.disruptive,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("tiny_inputs"),
]
DEVCLUSTER = Path(__file__).parents[2] / "devcluster" / "devcluster"
SYSTEM = "llmtrain-system"
LONG: dict[str, Any] = {
    "training": {"maxSteps": 240},
    "checkpoint": {"everySteps": 10},
    "workers": {"nodes": 2},
}


def _step(namespace: str, name: str) -> int:
    return int((cluster.status_of(namespace, name).get("progress") or {}).get("step") or 0)


def _wait_for_step(namespace: str, name: str, step: int) -> None:
    cluster.wait_until(lambda: _step(namespace, name) >= step, f"step {step}", seconds=240)


def _weights(namespace: str, name: str) -> str:
    """Returns the SHA-256 of the adapter's weights, as the final manifest has it."""
    manifest = cluster.read_json("runs", f"{namespace}/{name}/model/manifest.json")
    return next(
        str(f["sha256"])
        for f in manifest["files"]
        if f["path"].endswith("adapter_model.safetensors")
    )


def _children(namespace: str) -> tuple[list[str], list[str]]:
    """Returns the names of all Jobs and of all pods' UIDs in a namespace."""
    jobs = sorted(job["metadata"]["name"] for job in cluster.list_of("jobs", namespace))
    pods = sorted(pod["metadata"]["uid"] for pod in cluster.list_of("pods", namespace))
    return jobs, pods


def _kill_operator() -> None:
    cluster.kubectl(
        "delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/name=llmtrain",
        "--force", "--grace-period=0",
    )  # fmt: skip


def test_the_operator_dies_in_mid_run(namespace: str) -> None:
    cluster.apply(cluster.run_manifest(namespace, "steady", LONG))
    _wait_for_step(namespace, "steady", 5)
    before = _children(namespace)
    _kill_operator()
    status = cluster.wait_finished(namespace, "steady")
    assert status["phase"] == "Succeeded"
    assert status["attempt"] == 1
    assert status["progress"]["summary"] == "240/240"
    assert _children(namespace) == before


def test_the_api_server_restarts_while_a_job_is_created_and_while_status_is_written(
    namespace: str,
) -> None:
    manifests = [
        cluster.run_manifest(namespace, f"run-{n}", {"training": {"maxSteps": 8}}) for n in range(3)
    ]
    cluster.apply(manifests)
    subprocess.run([DEVCLUSTER, "restart-apiserver"], check=True, capture_output=True)
    _wait_for_step(namespace, "run-0", 1)
    subprocess.run([DEVCLUSTER, "restart-apiserver"], check=True, capture_output=True)
    for n in range(3):
        status = cluster.wait_finished(namespace, f"run-{n}")
        assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    jobs, pods = _children(namespace)
    assert jobs == ["run-0-a1", "run-1-a1", "run-2-a1"]
    assert len(pods) == 3


def test_a_killed_trainer_pod_costs_nothing_but_time(namespace: str) -> None:
    cluster.apply(cluster.run_manifest(namespace, "undisturbed", LONG))
    cluster.wait_finished(namespace, "undisturbed")
    cluster.apply(cluster.run_manifest(namespace, "disturbed", LONG))
    cluster.wait_for_checkpoint(namespace, "disturbed")
    pod = cluster.list_of("pods", namespace, "llmtrain.dev/run=disturbed")[-1]["metadata"]["name"]
    cluster.kubectl("delete", "pod", pod, "-n", namespace, "--force", "--grace-period=0")
    status = cluster.wait_finished(namespace, "disturbed", 400)

    assert status["phase"] == "Succeeded"
    assert status["attempt"] == 2
    first = status["attempts"][0]
    assert first["failure"]["exitClass"] in {"NodeLost", "PeerLost", "Preempted"}, first
    assert status["checkpoints"][0]["name"] == "240-a2r0"
    logs = cluster.read_logs(namespace, "disturbed")
    assert "begins from checkpoint" in logs
    assert _weights(namespace, "disturbed") == _weights(namespace, "undisturbed")


def test_a_lost_node_is_survived(namespace: str) -> None:
    """A node dies for good under a run: its pod hangs in Terminating, the run does not."""
    soon = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 5,
    }
    changes = cluster.merged(LONG, {"workers": {"tolerations": [soon]}})
    cluster.apply(cluster.run_manifest(namespace, "lost", changes))
    cluster.wait_for_checkpoint(namespace, "lost")
    subprocess.run([DEVCLUSTER, "kill-node", "1"], check=True, capture_output=True)
    try:
        cluster.wait_until(
            lambda: cluster.status_of(namespace, "lost").get("attempt") == 2,
            "the second attempt",
            seconds=500,
        )
    finally:
        subprocess.run([DEVCLUSTER, "start-node", "1"], check=True, capture_output=True)
    status = cluster.wait_finished(namespace, "lost", 300)
    assert status["phase"] == "Succeeded"


def test_a_dead_operator_does_not_slow_training(namespace: str) -> None:
    """Without an operator a run trains to its end, and the next operator finds it finished."""
    cluster.apply(cluster.run_manifest(namespace, "alone", {"training": {"maxSteps": 30}}))
    _wait_for_step(namespace, "alone", 1)
    deployment = ("deployment/llmtrain", "-n", SYSTEM)
    cluster.kubectl("scale", *deployment, "--replicas=0")
    try:
        cluster.wait_until(
            lambda: (
                f"{namespace}/alone/model/manifest.json"
                in cluster.keys_of("runs", f"{namespace}/alone/model/")
            ),
            "the final manifest",
            seconds=180,
        )
        cluster.wait_until(
            lambda: cluster.list_of("pods", namespace)[0]["status"]["phase"] == "Succeeded",
            "the pod ends by itself",
            seconds=60,
        )
    finally:
        cluster.kubectl("scale", *deployment, "--replicas=1")
    started = time.monotonic()
    status = cluster.wait_finished(namespace, "alone", 120)
    assert time.monotonic() - started < 120
    assert status["phase"] == "Succeeded"
    assert status["progress"]["summary"] == "30/30"
