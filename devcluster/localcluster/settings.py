"""Names, addresses and folders of the cluster.

The bridge, its addresses and the ports exist once per machine, so there is one cluster per
machine: what belongs to the machine is kept in `RUN`, what belongs to a clone in `STATE`.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / "devcluster" / "programs"

STATE = Path(os.environ.get("DEVCLUSTER_STATE") or REPOSITORY / ".devcluster")
"""Data, keys, logs and configuration of this clone's cluster."""

RUN = Path("/run/llmtrain-devcluster")
"""Process records and sockets. Short, because a socket's path has at most 107 characters."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmtrain-devcluster"
"""Compiled programs and image layers, shared by all clones."""

OWN_CLUSTER = os.environ.get("OWN_CLUSTER") == "1"
"""Whether the user has a cluster, so that only the images are made here."""

CONTEXT = "llmtrain-dev"
KUBERNETES_VERSION = "v1.35.4"

NODES = (0, 1)
BRIDGE = "llmtrain0"
HOST_IP = "10.99.0.1"
"""The machine's address on the bridge: API server, DNS, registry and S3 listen here only."""

POD_RANGE = "10.244.0.0/16"
POD_GATEWAY = "10.244.0.1/16"
SERVICE_RANGE = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"

API_PORT = 6443
ETCD_PORT = 23790
ETCD_PEER_PORT = 23800
PROXY_HEALTH_PORT = 10256
REGISTRY = f"{HOST_IP}:5000"
S3 = f"{HOST_IP}:7070"
REGION = "us-east-1"
BUCKETS = ("models", "data", "runs")

KUBECONFIG = STATE / "kubeconfig"
KEYS = STATE / "keys"
LOGS = STATE / "log"
REGISTRY_DATA = STATE / "registry"
"""Survives `down`: images pushed once are not pushed again."""


def node_name(index: int) -> str:
    """Returns the name of a node, which is also its host name."""
    return f"node{index}"


def node_ip(index: int) -> str:
    """Returns the address of a node on the bridge: node0 has the machine's own."""
    return f"10.99.0.{1 + index}"
