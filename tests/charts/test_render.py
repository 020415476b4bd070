"""The chart as Helm renders it, and as a real API server takes it.

Needs the programs of the cluster (`helm`, `kubectl`), so these are end-to-end tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import cluster
import pytest
import yaml

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "llmtrain"
NAMESPACE = "llmtrain-system"
IMAGES = ("image.repository=registry.example/operator", "trainerImage=registry.example/trainer:1")

RIGHTS = {
    ("llmtrain.dev", "llmtrainruns"): {"list", "watch", "create", "delete"},
    ("llmtrain.dev", "llmtrainschedules"): {"list", "watch"},
    ("llmtrain.dev", "llmtrainruns/status"): {"patch"},
    ("llmtrain.dev", "llmtrainschedules/status"): {"patch"},
    ("batch", "jobs"): {"list", "watch", "create", "delete"},
    ("", "pods"): {"list", "watch", "delete"},
    ("", "configmaps"): {"get", "create", "patch", "delete"},
    ("", "services"): {"get", "create"},
    ("", "events"): {"list", "create", "patch"},
}
REVIEW = {("authentication.k8s.io", "tokenreviews"): {"create"}}


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *args], capture_output=True, text=True, check=False)


@cache
def render(*values: str, images: bool = True) -> list[dict[str, Any]]:
    """Returns the chart's objects with `values` set, each as `path=value` in Helm's notation."""
    settings = [f"--set={value}" for value in ((*IMAGES, *values) if images else values)]
    done = helm(
        "template", "llmtrain", str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.35.4",
        *settings,
    )  # fmt: skip
    if done.returncode:
        raise ValueError(done.stderr)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pick(objects: list[dict[str, Any]], kind: str, suffix: str = "") -> dict[str, Any]:
    """Returns the one object of a kind whose name ends with `suffix`."""
    [found] = [
        one
        for one in objects
        if one["kind"] == kind and one["metadata"]["name"].endswith(suffix or "llmtrain")
    ]
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def rights(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_the_chart_lints_strictly() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_holds_the_real_resource_definitions(tmp_path: Path) -> None:
    assert helm("package", str(CHART), "--destination", str(tmp_path)).returncode == 0
    [package] = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        for crd in (ROOT / "crds").glob("*.yaml"):
            member = archive.extractfile(f"llmtrain/files/crds/{crd.name}")
            assert member is not None
            assert member.read() == crd.read_bytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(("imagee.tag=1",), "'imagee' not allowed", id="a mistyped name"),
        pytest.param(("settings.loglevel=INFO",), "'loglevel' not allowed", id="a wrong case"),
        pytest.param(("settings.logLevel=debug",), "one of 'DEBUG'", id="an unknown level"),
        pytest.param(("settings.workers=0",), "minimum", id="no workers"),
        pytest.param(("crds.enabled=maybe",), "want boolean", id="a word for a switch"),
        pytest.param(("image.digest=latest",), "does not match pattern", id="a digest of a word"),
        pytest.param(("watchNamespaces={Team}",), "does not match pattern", id="no namespace"),
        pytest.param(("service.progressPort=443",), "minimum", id="a port that needs root"),
    ],
)
def test_a_value_that_cannot_be_is_refused(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match="values don't meet the specifications") as caught:
        render(*values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(("trainerImage=x",), "image.repository: not set", id="no operator image"),
        pytest.param(("image.repository=x",), "trainerImage: not set", id="no trainer image"),
        pytest.param(
            ("image.repository=x", "trainerImage=x", "serviceAccount.create=false"),
            "serviceAccount.name: serviceAccount.create is false", id="no account",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(*values, images=False)


@pytest.mark.parametrize(
    ("values", "image"),
    [
        pytest.param((), "registry.example/operator:0.1.0", id="the chart's version by default"),
        pytest.param(("image.tag=dev",), "registry.example/operator:dev", id="a tag"),
        pytest.param(
            ("image.tag=dev", f"image.digest=sha256:{'0' * 64}"),
            f"registry.example/operator@sha256:{'0' * 64}", id="a digest goes before a tag",
        ),
        pytest.param(("image.reference=a/b@c",), "a/b@c", id="a whole reference"),
    ],
)  # fmt: skip
def test_the_image(values: tuple[str, ...], image: str) -> None:
    assert container(render(*values))["image"] == image


def test_the_definitions_are_those_of_the_repository_and_outlive_the_release() -> None:
    rendered = {
        one["metadata"]["name"]: one
        for one in render()
        if one["kind"] == "CustomResourceDefinition"
    }
    sources = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    assert set(rendered) == {one["metadata"]["name"] for one in sources}
    for source in sources:
        made = rendered[source["metadata"]["name"]]
        assert made["spec"] == source["spec"]
        assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_definitions_can_be_left_to_someone_else() -> None:
    kinds = {one["kind"] for one in render("crds.enabled=false")}
    assert "CustomResourceDefinition" not in kinds


def test_the_operator_has_the_rights_it_uses_and_no_more() -> None:
    assert rights(pick(render(), "ClusterRole")) == RIGHTS | REVIEW


def test_the_page_for_operators_lists_the_rights() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|(?: `([\w.]+)`)? \| `([\w/]+)` \| ([a-z, ]+) \|", page, re.MULTILINE)
    group, listed = "", {}
    for named, resource, verbs in rows:
        group = named or ("" if resource in ("pods", "configmaps", "services", "events") else group)
        listed[group, resource] = set(verbs.split(", "))
    assert listed == RIGHTS | REVIEW


def test_with_named_namespaces_its_rights_end_there() -> None:
    objects = render("watchNamespaces={team-a,team-b}")
    assert rights(pick(objects, "ClusterRole")) == REVIEW
    roles = [one for one in objects if one["kind"] == "Role"]
    assert [one["metadata"]["namespace"] for one in roles] == ["team-a", "team-b"]
    assert [rights(one) for one in roles] == [RIGHTS, RIGHTS]
    bound = [one["metadata"]["namespace"] for one in objects if one["kind"] == "RoleBinding"]
    assert bound == ["team-a", "team-b"]
    env = {one["name"]: one.get("value") for one in container(objects)["env"]}
    assert env["LLMTRAIN_WATCH_NAMESPACES"] == "team-a,team-b"


def test_nobody_but_the_operator_writes_a_status() -> None:
    for role in ("view", "edit"):
        assert set(rights(pick(render(), "ClusterRole", f":{role}"))) == {
            ("llmtrain.dev", "llmtrainruns"),
            ("llmtrain.dev", "llmtrainschedules"),
        }


def test_rights_can_be_left_to_someone_else() -> None:
    kinds = {one["kind"] for one in render("rbac.create=false", "rbac.aggregate=false")}
    assert not any("Role" in kind for kind in kinds)


def test_every_variable_of_the_operator_is_one_that_it_knows() -> None:
    from llmtrain_operator.settings import PREFIX, Settings

    names = {one["name"] for one in container(render("tls.existingSecret=x"))["env"]}
    assert names == {PREFIX + field.upper() for field in Settings.model_fields}


def test_a_certificate_of_ones_own_is_mounted_where_the_operator_looks() -> None:
    objects = render("tls.existingSecret=my-tls")
    [mount] = [m for m in container(objects)["volumeMounts"] if m["name"] == "tls"]
    env = {one["name"]: one.get("value") for one in container(objects)["env"]}
    assert env["LLMTRAIN_TLS_FOLDER"] == mount["mountPath"]
    volumes = pick(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "tls", "secret": {"secretName": "my-tls"}} in volumes


@pytest.mark.parametrize(
    ("values", "trainers"),
    [
        pytest.param((), {}, id="trainers of all namespaces may post"),
        pytest.param(
            ("watchNamespaces={team}",),
            {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team"]}
            ]},
            id="trainers of the served namespaces may post",
        ),
    ],
)  # fmt: skip
def test_the_network_policy(values: tuple[str, ...], trainers: dict[str, Any]) -> None:
    policy = pick(render("networkPolicy.enabled=true", *values), "NetworkPolicy")
    progress, metrics = policy["spec"]["ingress"]
    assert progress["from"] == [
        {
            "namespaceSelector": trainers,
            "podSelector": {
                "matchExpressions": [{"key": "llmtrain.dev/run", "operator": "Exists"}]
            },
        }
    ]
    assert metrics == {"from": [{"podSelector": {}}], "ports": [{"port": "metrics"}]}


def test_the_service_monitor_scrapes_a_port_of_the_service() -> None:
    objects = render("serviceMonitor.enabled=true", "serviceMonitor.labels.release=prometheus")
    monitor, service = pick(objects, "ServiceMonitor"), pick(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()


def test_one_operator_at_a_time() -> None:
    spec = pick(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_base_for_kubectl_is_the_chart_as_it_is(tmp_path: Path) -> None:
    fresh = tmp_path / "operator.yaml"
    subprocess.run([ROOT / "charts/kustomize/render.sh", fresh], check=True)
    kept = ROOT / "charts" / "kustomize" / "operator.yaml"
    assert kept.read_text() == fresh.read_text(), "run charts/kustomize/render.sh"


OPTIONS = (
    "tls.existingSecret=x",
    "networkPolicy.enabled=true",
    "priorityClassName=system-cluster-critical",
    "nodeSelector.disk=ssd",
    "podAnnotations.a=b",
    "podLabels.c=d",
    "imagePullSecrets[0].name=x",
    "tolerations[0].operator=Exists",
    "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b",
    "serviceAccount.annotations.a=b",
)


@pytest.fixture(scope="module")
def dry_namespace() -> Any:
    """A namespace that enforces Pod Security `restricted`, with the chart's account in it."""
    name = f"llmtrain-dry-run-{uuid.uuid4().hex[:6]}"  # Processes of tests run at once.
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "llmtrain", "namespace": name},
        }
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((), id="by default"),
        pytest.param(OPTIONS, id="with every option"),
        pytest.param((f"watchNamespaces={{{NAMESPACE}}}",), id="for one namespace"),
    ],
)
def test_a_real_api_server_takes_it(dry_namespace: str, values: tuple[str, ...]) -> None:
    objects = json.loads(json.dumps(render(*values)).replace(NAMESPACE, dry_namespace))
    bundle = {"apiVersion": "v1", "kind": "List", "items": objects}
    done = cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server",
        "--validate=strict", "-f", "-", stdin=json.dumps(bundle),
    )  # fmt: skip
    assert done.stdout.count("serverside-applied") == len(objects)
    assert "would violate PodSecurity" not in done.stderr


def test_a_real_api_server_takes_the_base_for_kubectl() -> None:
    done = cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", str(ROOT)
    )
    assert "deployment.apps/llmtrain serverside-applied" in done.stdout
