"""`workers.podTemplate` over our pod: what merges, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from views import spec

from llmtrain_api.errors import ConfigError
from llmtrain_operator.overlay import apply_overlay, check_overlay
from llmtrain_operator.pods import build_pod


@pytest.fixture
def template() -> dict[str, Any]:
    pod = build_pod(spec(), image="trainer:1", config_map="one-a1", service="s", run_uid="u")
    return {"metadata": {"labels": {"llmtrain.dev/run": "one"}}, "spec": pod}


def trainer_of(pod: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in pod["spec"]["containers"] if c["name"] == "trainer")


def test_an_empty_overlay_changes_nothing(template: dict[str, Any]) -> None:
    assert apply_overlay(template, {}) == template


def test_what_a_platform_adds_is_merged_by_name(template: dict[str, Any]) -> None:
    overlay: dict[str, Any] = {
        "metadata": {"labels": {"team": "nlp"}, "annotations": {"example.com/cost": "42"}},
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "priorityClassName": "high",
            "volumes": [{"name": "notes", "emptyDir": {}}],
            "initContainers": [{"name": "sidecar", "image": "x", "restartPolicy": "Always"}],
            "containers": [
                {
                    "name": "trainer",
                    "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},
                    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                    "volumeMounts": [{"name": "notes", "mountPath": "/notes"}],
                }
            ],
        },
    }
    merged = apply_overlay(template, overlay)
    ours, theirs = trainer_of(template), trainer_of(merged)
    assert merged["metadata"]["labels"] == {"llmtrain.dev/run": "one", "team": "nlp"}
    assert merged["metadata"]["annotations"] == {"example.com/cost": "42"}
    assert merged["spec"]["priorityClassName"] == "high"
    assert merged["spec"]["initContainers"][0]["name"] == "sidecar"
    assert merged["spec"]["volumes"] == [
        *template["spec"]["volumes"],
        overlay["spec"]["volumes"][0],
    ]
    assert theirs["volumeMounts"][:-1] == ours["volumeMounts"]
    assert theirs["env"][:-1] == ours["env"]
    assert theirs["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert theirs["image"] == "trainer:1"


def test_an_item_of_our_name_is_changed_in_place(template: dict[str, Any]) -> None:
    variable = {"name": "MPLCONFIGDIR", "value": "/scratch/mpl"}
    overlay = {"spec": {"containers": [{"name": "trainer", "env": [variable]}]}}
    merged = trainer_of(apply_overlay(template, overlay))["env"]
    assert len(merged) == len(trainer_of(template)["env"])
    assert variable in merged


def test_a_list_without_names_is_replaced(template: dict[str, Any]) -> None:
    overlay = {"spec": {"tolerations": [{"operator": "Exists"}]}}
    assert apply_overlay(template, overlay)["spec"]["tolerations"] == [{"operator": "Exists"}]


def test_neither_side_is_changed(template: dict[str, Any]) -> None:
    overlay = {"spec": {"nodeSelector": {"a": "b"}}}
    merged = apply_overlay(template, overlay)
    merged["spec"]["nodeSelector"]["a"] = "c"
    assert overlay == {"spec": {"nodeSelector": {"a": "b"}}}
    assert "nodeSelector" not in template["spec"]


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


@pytest.mark.parametrize(
    ("overlay", "field"),
    [
        pytest.param({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy", id="restarts"),
        pytest.param({"spec": {"subdomain": "x"}}, "spec.subdomain", id="host names"),
        pytest.param({"spec": {"hostname": "x"}}, "spec.hostname", id="a host name"),
        pytest.param(
            {"spec": {"terminationGracePeriodSeconds": 1}},
            "spec.terminationGracePeriodSeconds",
            id="a typed field owns the grace time",
        ),
        pytest.param(
            {"spec": {"activeDeadlineSeconds": 1}}, "spec.activeDeadlineSeconds", id="deadline"
        ),
        pytest.param(
            {"spec": {"shareProcessNamespace": True}}, "spec.shareProcessNamespace", id="PID 1"
        ),
        pytest.param({"metadata": {"name": "x"}}, "metadata.name", id="a name"),
        pytest.param(
            {"metadata": {"labels": {"llmtrain.dev/run": "x"}}},
            "metadata.labels[llmtrain.dev/run]",
            id="a label of ours",
        ),
        pytest.param(
            {"spec": {"volumes": [{"name": "llmtrain-token"}]}},
            "spec.volumes[llmtrain-token]",
            id="a volume of ours",
        ),
        pytest.param(container(command=["sh"]), "spec.containers[trainer].command", id="command"),
        pytest.param(container(image="x"), "spec.containers[trainer].image", id="image"),
        pytest.param(
            container(env=[{"name": "LLMTRAIN_X"}]),
            "spec.containers[trainer].env[LLMTRAIN_X]",
            id="a variable of ours",
        ),
        pytest.param(
            container(env=[{"name": "RANK"}]),
            "spec.containers[trainer].env[RANK]",
            id="a variable of torchrun",
        ),
        pytest.param(
            container(env=[{"name": "JOB_COMPLETION_INDEX"}]),
            "spec.containers[trainer].env[JOB_COMPLETION_INDEX]",
            id="a variable of the Job",
        ),
        pytest.param(
            container(volumeMounts=[{"name": "llmtrain-scratch", "mountPath": "/x"}]),
            "spec.containers[trainer].volumeMounts[llmtrain-scratch]",
            id="a mount of a volume of ours",
        ),
        pytest.param(
            {"spec": {"containers": [{"name": "sidecar"}]}},
            "spec.containers[sidecar]",
            id="a sidecar that would keep the pod from ending",
        ),
        pytest.param({"kind": "Pod"}, "kind", id="a field that no template has"),
        pytest.param({"spec": {"nodeName": None}}, "spec.nodeName", id="null"),
        pytest.param({"spec": ["x"]}, "spec", id="a list for an object"),
        pytest.param(
            {"spec": {"volumes": {"name": "x"}}}, "spec.volumes", id="an object for a list"
        ),
        pytest.param(
            container(volumeMounts=[{"name": "own", "mountPath": {"path": "/x"}}]),
            "spec.containers.volumeMounts",
            id="a path that is an object",
        ),
        pytest.param(
            container(volumeMounts=7), "spec.containers[trainer].volumeMounts", id="mounts: 7"
        ),
        pytest.param(
            container(volumeMounts=[{"name": ["x"], "mountPath": "/x"}]),
            "spec.containers[trainer].volumeMounts",
            id="a mount whose name is a list",
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": [1]}]}]}},
            "spec.initContainers.ports",
            id="a port that is a list",
        ),
        pytest.param({"spec": {"volumes": [{}]}}, "spec.volumes", id="an item without a name"),
    ],
)
def test_what_llmtrain_owns_is_refused_by_name(overlay: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_overlay(overlay)
    assert caught.value.field == f"workers.podTemplate.{field}"
