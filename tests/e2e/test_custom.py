"""A command of the user's own on the cluster; the examples' Trainer script is in test_examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("tiny_inputs")]
SCRIPT = Path(__file__).parents[1] / "trainer" / "own_script.py"
STEPS = 1500
SYSTEM = "llmtrain-system"


def _run(namespace: str, name: str, **workers: Any) -> list[dict[str, Any]]:
    """Returns a run of the script in a ConfigMap, and the ConfigMap."""
    scripts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "scripts", "namespace": namespace},
        "data": {SCRIPT.name: SCRIPT.read_text()},
    }
    container = {
        "name": "trainer",
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts", "readOnly": True}],
    }
    volume = {"name": "scripts", "configMap": {"name": "scripts"}}
    changes = {
        "stage": "Custom",
        "tuning": None,
        "training": None,
        "datasets": [{"uri": "s3://data/tiny/", "format": "Any"}],
        "custom": {"command": ["python3", f"/scripts/{SCRIPT.name}"], "args": [str(STEPS)]},
        "checkpoint": {"everySteps": 100},
        "workers": {
            "podTemplate": {"spec": {"containers": [container], "volumes": [volume]}},
            **workers,
        },
    }
    return [scripts, cluster.run_manifest(namespace, name, changes)]


@pytest.mark.parametrize("launcher", ["Torchrun", "None"])
def test_a_command_on_two_nodes_is_stopped_and_goes_on(namespace: str, launcher: str) -> None:
    scripts, run = _run(namespace, "own", nodes=2)
    run["spec"]["custom"]["launcher"] = launcher
    cluster.apply([scripts, run])
    cluster.wait_for_checkpoint(namespace, "own")
    cluster.wait_until(
        lambda: (cluster.status_of(namespace, "own").get("progress") or {}).get("loss"),
        "progress by Kubeflow's protocol",
    )
    for suspend in (True, False):
        patch = json.dumps({"spec": {"suspend": suspend}})
        cluster.kubectl("patch", "ltr", "own", "-n", namespace, "--type=merge", "-p", patch)
        if suspend:
            cluster.wait_until(
                lambda: not cluster.list_of("pods", namespace), "the pods to end", seconds=120
            )
    status = cluster.wait_finished(namespace, "own", 400)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2), status.get("attempts")
    assert status.get("restarts", 0) == 0
    assert status["progress"]["summary"] == f"{STEPS}/{STEPS}"
    assert status["latestCheckpoint"] == f"{STEPS}-a2r0"
    body = cluster.s3_client().get_object(
        Bucket="runs", Key=f"{namespace}/own/model/weights-0"
    )["Body"]  # fmt: skip
    assert body.read().decode() == "".join(str(step % 10) for step in range(1, STEPS + 1))
    report = cluster.read_json("runs", f"{namespace}/own/model/report.json")
    assert report["data"] == ["tiny"]
    assert report["aws"] == []


def test_an_image_without_the_launcher_is_told(namespace: str) -> None:
    operator = cluster.get("deployment", SYSTEM, "llmtrain")
    image = operator["spec"]["template"]["spec"]["containers"][0]["image"]
    cluster.apply(_run(namespace, "bare", image=image))
    status = cluster.wait_finished(namespace, "bare")
    assert (status["phase"], status["attempt"]) == ("Failed", 1)
    told = cluster.condition(status, "Succeeded")
    assert told["reason"] == "InvalidConfig"
    assert "the image cannot start the launcher (llmtrain-trainer)" in told["message"]
