"""An operator that serves some namespaces only, with rights in those alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import audit
import cluster
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.disruptive,
    pytest.mark.usefixtures("tiny_inputs"),
]
ROOT = Path(__file__).parents[2]
SYSTEM = "llmtrain-system"
NARROW = "llmtrain-narrow"
"""Name of the release, of its namespace and of its ServiceAccount."""
NOT_BY_ONE_RUN = {
    ("llmtrain.dev", "llmtrainruns", "create"),  # A schedule.
    ("llmtrain.dev", "llmtrainruns", "delete"),
    ("llmtrain.dev", "llmtrainschedules/status", "patch"),
    ("", "pods", "delete"),  # A pod that hangs on a dead node.
    ("", "configmaps", "patch"),  # An operator that starts while a run trains.
    ("", "services", "get"),  # A Service whose name is taken, as from the second attempt on.
    ("", "events", "list"),  # Pods that are late.
    ("", "events", "patch"),  # The same Event twice.
}


def helm(*args: str) -> str:
    command = ["helm", *args, "--kube-context", cluster.CONTEXT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scale_cluster_wide_operator(replicas: int) -> None:
    cluster.kubectl("scale", "deployment/llmtrain", "-n", SYSTEM, f"--replicas={replicas}")
    selector = "app.kubernetes.io/instance=llmtrain,pod-template-hash"
    cluster.wait_until(
        lambda: len(cluster.list_of("pod", SYSTEM, selector)) == replicas, "the operator's pods"
    )
    cluster.kubectl("rollout", "status", "deployment/llmtrain", "-n", SYSTEM, "--timeout=120s")


@pytest.fixture
def narrow_operator(namespace: str) -> Iterator[None]:
    """An operator for `namespace` alone, of the images of the one it stands in for meanwhile."""
    values = json.loads(helm("get", "values", "llmtrain", "--namespace", SYSTEM, "-o", "json"))
    try:
        scale_cluster_wide_operator(0)
        helm(
            "install", NARROW, str(ROOT / "charts" / "llmtrain"),
            "--namespace", NARROW, "--create-namespace", "--wait", "--timeout", "3m",
            "--set", "crds.enabled=false", "--set", "rbac.aggregate=false",
            "--set-json", f"watchNamespaces={json.dumps([namespace])}",
            "--set-string", f"image.reference={values['image']['reference']}",
            "--set-string", f"trainerImage={values['trainerImage']}",
        )  # fmt: skip
        yield
    finally:
        helm("uninstall", NARROW, "--namespace", NARROW, "--ignore-not-found", "--wait")
        cluster.kubectl("delete", "namespace", NARROW, "--ignore-not-found", "--wait=false")
        scale_cluster_wide_operator(1)


@pytest.mark.usefixtures("narrow_operator")
def test_an_operator_with_rights_in_one_namespace_brings_a_run_to_its_end(namespace: str) -> None:
    changes = {"workers": {"nodes": 2}, "ttlSecondsAfterFinished": 1}
    cluster.apply(cluster.run_manifest(namespace, "tiny", changes))
    status = cluster.wait_finished(namespace, "tiny", 400)
    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    cluster.wait_until(lambda: not cluster.list_of("job", namespace), "the Job goes by its TTL")
    cluster.wait_until(
        lambda: ("", "configmaps", "delete") in audit.used_and_refused(NARROW, NARROW)[0],
        "the ConfigMap goes with it",
    )
    used, refused = audit.used_and_refused(NARROW, NARROW)
    granted = audit.granted(NARROW)
    assert granted > NOT_BY_ONE_RUN
    assert sorted(granted - used - NOT_BY_ONE_RUN) == [], "rights that were not used"
    assert refused == []
