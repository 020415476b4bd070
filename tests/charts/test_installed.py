"""The chart as `make install` left it in the one-machine cluster."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator

import cluster
import pytest

pytestmark = pytest.mark.e2e

RESOURCES = ("llmtrainruns.llmtrain.dev", "llmtrainschedules.llmtrain.dev")
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace in which vera may view, ed may edit and ada may administer."""
    name = f"roles-{uuid.uuid4().hex[:5]}"
    cluster.kubectl("create", "namespace", name)
    for user, role in (("vera", "view"), ("ed", "edit"), ("ada", "admin")):
        cluster.kubectl(
            "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", name
        )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def allowed(user: str, namespace: str) -> dict[str, set[str]]:
    """Returns the verbs that a user may use in a namespace, by resource of our API."""
    told = cluster.kubectl("auth", "can-i", "--list", "-n", namespace, "--as", user).stdout
    found: dict[str, set[str]] = {}
    for resource, verbs in re.findall(
        r"^(\S+\.llmtrain\.dev\S*) .*\[([a-z ]+)\]$", told, re.MULTILINE
    ):
        found.setdefault(resource, set()).update(verbs.split())
    return found


def test_the_clusters_own_roles_reach_what_is_ours_but_never_its_status(namespace: str) -> None:
    cluster.wait_until(lambda: allowed("vera", namespace), "the role is aggregated")
    assert {user: allowed(user, namespace) for user in ("vera", "ed", "ada", "eve")} == {
        "vera": {resource: set(READ) for resource in RESOURCES},
        "ed": {resource: {*READ, *WRITE} for resource in RESOURCES},
        "ada": {resource: {*READ, *WRITE} for resource in RESOURCES},
        "eve": {},
    }


def test_helm_test_finds_it_well() -> None:
    done = subprocess.run(
        ["helm", "test", "llmtrain", "--namespace", "llmtrain-system",
         "--kube-context", cluster.CONTEXT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Phase:          Succeeded" in done.stdout
