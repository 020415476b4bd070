"""The end-to-end tests run on the one-machine cluster: `make cluster`, `make install`."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import cluster
import pytest
import tiny
from filelock import FileLock


@pytest.fixture(scope="session")
def _cluster_is_ours() -> None:
    """Refuses any cluster but the one that this project starts."""
    config = os.environ.get("KUBECONFIG", "")
    if not config.endswith(".devcluster/kubeconfig"):
        pytest.exit("e2e tests run on the one-machine cluster only: use `make test-e2e`", 3)


@pytest.fixture(scope="session")
def kubectl(_cluster_is_ours: None) -> object:
    """kubectl against the one-machine cluster: `kubectl(*args, stdin=None, check=True)`."""
    return cluster.kubectl


@pytest.fixture(scope="session")
def tiny_inputs(_cluster_is_ours: None) -> None:
    """Puts the tiny model and its data where `cluster.run_manifest` says they are."""
    with FileLock(Path(os.environ["KUBECONFIG"]).parent / "tiny.lock"):  # One of all workers.
        tiny.upload(cluster.s3_client())


@pytest.fixture
def namespace(_cluster_is_ours: None, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace that enforces Pod Security `restricted`, with the S3 keys in a Secret."""
    word = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:30].strip("-")
    name = f"{word}-{uuid.uuid4().hex[:5]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    cluster.apply(cluster.secret(name))
    yield name
    subprocess.run(
        ["kubectl", "--context", cluster.CONTEXT, "delete", "namespace", name, "--wait=false"],
        check=True, capture_output=True,
    )  # fmt: skip
