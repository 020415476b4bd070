"""What a user adds to the pods reaches them, and what the operator owns is refused."""

from __future__ import annotations

from typing import Any

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.usefixtures("tiny_inputs")]

TEMPLATE: dict[str, Any] = {
    "metadata": {"annotations": {"example.com/team": "research"}, "labels": {"team": "research"}},
    "spec": {
        "volumes": [{"name": "notes", "emptyDir": {}}],
        "containers": [
            {"name": "trainer", "volumeMounts": [{"name": "notes", "mountPath": "/notes"}]},
        ],
        "initContainers": [
            {
                "name": "sidecar",
                "image": "SAME",
                "restartPolicy": "Always",
                "command": ["python3", "-c", "import time\nwhile True: time.sleep(1)"],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"requests": {"memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            }
        ],
    },
}


def _operator_args() -> str:
    pod = cluster.list_of("pods", "llmtrain-system", "app.kubernetes.io/name=llmtrain")[0]
    env = pod["spec"]["containers"][0]["env"]
    return str(next(e["value"] for e in env if e["name"] == "LLMTRAIN_TRAINER_IMAGE"))


def test_a_pod_template_is_merged_by_name(namespace: str) -> None:
    cluster.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": f"{namespace}-high"},
            "value": 1000,
        }
    )
    template = cluster.merged(TEMPLATE, {})
    template["spec"]["initContainers"][0]["image"] = _operator_args()
    changes = {
        "training": {"maxSteps": 2},
        "workers": {
            "podTemplate": template,
            "imagePullSecrets": [{"name": "registry-account"}],
            "priorityClassName": f"{namespace}-high",
        },
    }
    cluster.apply(cluster.run_manifest(namespace, "extra", changes))
    status = cluster.wait_finished(namespace, "extra")
    cluster.kubectl("delete", "priorityclass", f"{namespace}-high")
    assert status["phase"] == "Succeeded"
    pod = cluster.list_of("pods", namespace)[0]
    assert pod["metadata"]["annotations"]["example.com/team"] == "research"
    assert pod["metadata"]["labels"]["team"] == "research"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry-account"}]
    assert pod["spec"]["priority"] == 1000
    assert [c["name"] for c in pod["spec"]["containers"]] == ["trainer"]
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["sidecar"]
    mounts = {m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
    assert {"/notes", "/scratch", "/etc/llmtrain/run"} <= mounts
    assert pod["spec"]["automountServiceAccountToken"] is False
