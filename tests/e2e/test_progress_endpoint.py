"""The progress endpoint takes reports from a run's own pods and from nobody else."""

from __future__ import annotations

import json
import subprocess

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.usefixtures("tiny_inputs")]
SYSTEM = "llmtrain-system"

# Runs inside a pod of the trainer image: posts each body with each token, prints the answers.
CLIENT = """
import json, ssl, sys, urllib.error, urllib.request
job = json.load(sys.stdin)
context = ssl.create_default_context(cadata=job["ca"])
codes = []
for token, body in job["posts"]:
    request = urllib.request.Request(job["url"], data=body.encode(), method="POST", headers={
        "Authorization": "Bearer " + token, "Content-Type": "application/json"})
    try:
        codes.append(urllib.request.urlopen(request, context=context, timeout=5).status)
    except urllib.error.HTTPError as error:
        codes.append(error.code)
print(json.dumps(codes))
"""
REPORT = json.dumps({"attempt": 1, "activity": "Training"})


def _token(namespace: str, pod: str, audience: str) -> str:
    """Returns a token bound to a pod, as the kubelet would project it."""
    uid = cluster.get("pod", namespace, pod)["metadata"]["uid"]
    return cluster.kubectl(
        "create", "token", "default", "-n", namespace, f"--audience={audience}",
        "--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}",
    ).stdout.strip()  # fmt: skip


def _post(namespace: str, pod: str, posts: list[tuple[str, str]]) -> list[int]:
    config = cluster.list_of("configmaps", namespace, "llmtrain.dev/run")[0]["data"]
    url = json.loads(config["run.json"])["progressUrl"]
    job = {"ca": config["ca.crt"], "url": url, "posts": posts}
    command = ["exec", "-i", "-n", namespace, pod, "-c", "trainer", "--", "python3", "-c", CLIENT]
    return list(json.loads(cluster.kubectl(*command, stdin=json.dumps(job)).stdout))


def test_only_a_runs_own_pod_may_report(namespace: str) -> None:
    changes = {"training": {"maxSteps": 2000}, "checkpoint": {"everySteps": 1000}}
    cluster.apply(cluster.run_manifest(namespace, "talks", changes))
    cluster.wait_until(
        lambda: (cluster.status_of(namespace, "talks").get("progress") or {}).get("step"),
        "training",
        seconds=120,
    )
    pod = cluster.list_of("pods", namespace)[0]["metadata"]["name"]
    operator = cluster.list_of("pods", SYSTEM, "app.kubernetes.io/name=llmtrain")[0]
    restarts = operator["status"]["containerStatuses"][0]["restartCount"]
    stranger = cluster.kubectl(
        "create", "token", "default", "-n", SYSTEM, "--audience=llmtrain.dev/progress"
    ).stdout.strip()
    own = _token(namespace, pod, "llmtrain.dev/progress")
    codes = _post(
        namespace,
        pod,
        [
            (own, REPORT),
            (own, json.dumps({"attempt": 2, "activity": "Training"})),
            (_token(namespace, pod, "https://kubernetes.default.svc"), REPORT),
            (stranger, REPORT),
            ("not-a-token", REPORT),
            *[(own, "{" * n) for n in range(1, 201)],
        ],
    )
    assert codes[0] == 204
    assert codes[1] in (403, 409)
    assert set(codes[2:5]) <= {401, 403}, codes[2:5]
    assert set(codes[5:]) <= {400, 429}, "200 malformed posts are each refused"
    operator = cluster.list_of("pods", SYSTEM, "app.kubernetes.io/name=llmtrain")[0]
    assert operator["status"]["containerStatuses"][0]["restartCount"] == restarts
    before = cluster.status_of(namespace, "talks")["progress"]["step"]
    cluster.wait_until(
        lambda: cluster.status_of(namespace, "talks")["progress"]["step"] > before,
        "progress goes on",
        seconds=30,
    )
    cluster.kubectl("delete", "ltr", "talks", "-n", namespace)


def test_the_operators_pod_is_restricted_and_reads_no_secrets() -> None:
    who = f"system:serviceaccount:{SYSTEM}:llmtrain"
    for verb in ("get", "list", "watch"):
        command = ["auth", "can-i", verb, "secrets", "--as", who, "--all-namespaces"]
        assert cluster.kubectl(*command, check=False).stdout.strip() == "no"
    pod = cluster.list_of("pods", SYSTEM, "app.kubernetes.io/name=llmtrain")[0]
    container = pod["spec"]["containers"][0]["securityContext"]
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    result = subprocess.run(
        ["kubectl", "--context", cluster.CONTEXT, "label", "--dry-run=server", "--overwrite",
         "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "would violate" not in result.stderr
