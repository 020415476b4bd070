"""The ConfigMap, Service and Job of an attempt."""

from __future__ import annotations

import json
from typing import Any

import pytest
import specs
from views import RUN_UID, run, spec

from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import RunFile
from llmtrain_operator.children import Children, build_children, job_name
from llmtrain_operator.snapshot import RunKey


def children(of: RunSpec | None = None, attempt: int = 2) -> Children:
    return build_children(
        run(),
        of or spec(),
        attempt,
        image="trainer:1",
        progress_url="https://llmtrain.system.svc:8443/v1alpha1/progress",
        ca="PEM",
    )


def pod_of(built: Children) -> dict[str, Any]:
    return dict(built.job["spec"]["template"]["spec"])


def trainer_of(built: Children) -> dict[str, Any]:
    return dict(pod_of(built)["containers"][0])


def test_all_children_are_the_runs_own_and_carry_its_labels() -> None:
    built = children()
    for child in (built.config_map, built.job, built.service):
        assert child is not None
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["uid"], owner["controller"], owner["kind"]) == (RUN_UID, True, "LLMTrainRun")
        assert child["metadata"]["labels"]["llmtrain.dev/run"] == "one"
    assert built.job["metadata"]["labels"]["llmtrain.dev/attempt"] == "2"
    assert built.job["spec"]["template"]["metadata"]["labels"]["llmtrain.dev/run-uid"] == RUN_UID


def test_the_job_is_one_gang() -> None:
    job = children(spec(workers={"nodes": 4}, training={"globalBatchSize": 8})).job["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 4, 4)
    assert (job["backoffLimit"], job["podReplacementPolicy"]) == (0, "Failed")
    assert "ttlSecondsAfterFinished" not in job
    assert "activeDeadlineSeconds" not in job
    assert "podFailurePolicy" not in job


def test_the_run_file_is_what_the_trainer_reads() -> None:
    data = children().config_map["data"]
    run_file = RunFile.model_validate_json(data["run.json"])
    assert (run_file.name, run_file.namespace, run_file.uid) == ("one", "default", RUN_UID)
    assert run_file.attempt == 2
    assert run_file.spec == spec()
    assert run_file.master_address == "one-a2-0.one-workers"
    assert run_file.progress_url.startswith("https://")
    assert data["ca.crt"] == "PEM"


def test_pods_find_each_other_before_they_are_ready() -> None:
    built = children()
    assert built.service is not None
    assert built.service["spec"]["publishNotReadyAddresses"] is True
    assert built.service["spec"]["clusterIP"] == "None"
    assert built.service["spec"]["selector"] == {"llmtrain.dev/run-uid": RUN_UID}
    assert pod_of(built)["subdomain"] == built.service["metadata"]["name"]


def test_a_single_pod_needs_no_service() -> None:
    built = children(spec(workers={"nodes": 1}))
    assert built.service is None
    assert json.loads(built.config_map["data"]["run.json"])["masterAddress"] == "127.0.0.1"
    assert "affinity" not in pod_of(built)


def test_pods_meet_pod_security_restricted() -> None:
    pod, trainer = pod_of(children()), trainer_of(children())
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert trainer["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "configMap", "secret", "projected"}


def test_volumes_lie_where_the_layout_says() -> None:
    built = children(spec(storage={"secretName": "s3"}))
    mounts = {m["mountPath"]: m for m in trainer_of(built)["volumeMounts"]}
    assert set(mounts) == {
        "/scratch",
        "/tmp",
        "/dev/shm",
        "/etc/llmtrain/run",
        "/etc/llmtrain/ca",
        "/etc/llmtrain/token",
        "/etc/llmtrain/storage",
    }
    assert all("subPath" not in m for path, m in mounts.items() if path.startswith("/etc"))
    volumes = {v["name"]: v for v in pod_of(built)["volumes"]}
    secret = volumes[mounts["/etc/llmtrain/storage"]["name"]]["secret"]
    assert (secret["secretName"], secret["optional"]) == ("s3", False)
    token = volumes[mounts["/etc/llmtrain/token"]["name"]]["projected"]["sources"][0]
    assert token["serviceAccountToken"]["audience"] == "llmtrain.dev/progress"


def test_an_image_of_ones_own_starts_the_launcher_whatever_its_entry_point() -> None:
    assert "command" not in trainer_of(children())
    own = RunSpec.model_validate(specs.good("Custom"))
    trainer = trainer_of(children(own))
    assert trainer["command"] == ["llmtrain-trainer"]
    assert trainer["args"] == ["/etc/llmtrain/run/run.json"]


def test_no_secret_is_mounted_where_none_is_named() -> None:
    assert all("secret" not in volume for volume in pod_of(children())["volumes"])


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param({}, {"limits": {}, "requests": {}}, id="nothing is asked for"),
        pytest.param(
            {"limits": {"memory": "8Gi", "nvidia.com/gpu": 8}},
            {
                "limits": {"memory": "8Gi", "nvidia.com/gpu": "8"},
                "requests": {"memory": "8Gi", "nvidia.com/gpu": "8"},
            },
            id="requests default to the limits",
        ),
        pytest.param(
            {"limits": {"memory": "8Gi"}, "requests": {"memory": "4Gi", "cpu": 1}},
            {"limits": {"memory": "8Gi"}, "requests": {"memory": "4Gi", "cpu": "1"}},
            id="requests of the user's own stay",
        ),
    ],
)
def test_resources(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    built = children(spec(workers={"nodes": 1, "resources": resources}))
    assert trainer_of(built)["resources"] == expected


def test_what_the_user_says_of_pods_is_passed_on() -> None:
    workers = {
        "nodes": 2,
        "serviceAccountName": "trainer",
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "scratch": {"sizeLimit": "10Gi"},
        "terminationGracePeriodSeconds": 60,
    }
    built = children(spec(workers=workers))
    pod = pod_of(built)
    assert pod["serviceAccountName"] == "trainer"
    assert pod["priorityClassName"] == "high"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["affinity"] == {"nodeAffinity": {}}
    assert "topologySpreadConstraints" not in pod, "the user's own affinity decides alone"
    assert pod["terminationGracePeriodSeconds"] == 60
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in trainer_of(built)["env"]
    assert {"sizeLimit": "10Gi"} in [v.get("emptyDir") for v in pod["volumes"]]


def test_the_trackers_keys_come_from_their_secrets_by_name() -> None:
    tracking = {
        "mlflow": {"trackingUri": "http://m:5000", "experiment": "x", "secretName": "of-mlflow"},
        "wandb": {"project": "x", "secretName": "of-wandb"},
    }
    given = {"env": [{"name": "WANDB_API_KEY", "value": "mine"}, {"name": "A", "value": "1"}]}
    env = trainer_of(children(spec(tracking=tracking, workers=given)))["env"]
    named = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in env if "valueFrom" in each}
    assert named["WANDB_API_KEY"] == {
        "name": "of-wandb",
        "key": "WANDB_API_KEY",
        "optional": False,
    }
    for key in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        assert named[key] == {"name": "of-mlflow", "key": key, "optional": True}
    names = [each["name"] for each in env]
    assert len(names) == len(set(names)), "a Secret stands in place of a variable of that name"
    assert {"name": "A", "value": "1"} in env


def test_no_variable_comes_from_a_secret_where_none_is_named() -> None:
    open_server = {"mlflow": {"trackingUri": "http://m:5000", "experiment": "x"}}
    for built in (children(), children(spec(tracking=open_server))):
        assert all("valueFrom" not in each for each in trainer_of(built)["env"])


def test_pods_of_a_gang_prefer_different_nodes() -> None:
    pod = pod_of(children())
    assert pod["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    assert list(pod["affinity"]["podAntiAffinity"]) == [
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]


def test_the_overlay_is_applied() -> None:
    template = {"metadata": {"annotations": {"a": "b"}}}
    built = children(spec(workers={"podTemplate": template}))
    assert built.job["spec"]["template"]["metadata"]["annotations"] == {"a": "b"}


def test_names_fit_into_a_host_name() -> None:
    longest = RunKey("default", "x" * 40)
    assert len(f"{job_name(longest.name, 9999)}-1023") <= 63


def test_two_builds_are_equal() -> None:
    assert children() == children()
