"""The processes of the control plane, DNS and the service proxy, each with its configuration."""

import contextlib
import json
import socket
import urllib.request

from localcluster import api, keys, programs
from localcluster.settings import (
    API_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    HOST_IP,
    KEYS,
    POD_RANGE,
    PROXY_HEALTH_PORT,
    SERVICE_RANGE,
    STATE,
    node_name,
)
from localcluster.shell import write
from localcluster.supervisor import Process, pid_of

AUDIT_LOG = STATE / "audit.log"
ADMISSION_PLUGINS = ("LimitRanger", "NodeRestriction", "PodSecurity", "ResourceQuota")
"""Named although most are on by default, because the tests rely on them."""


def answers(url: str) -> bool:
    """Returns whether an HTTP server of this machine gives a 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _accepts(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def _runs(name: str) -> bool:
    return pid_of(name) is not None


def etcd() -> Process:
    """Returns the store of all objects."""
    client, peer = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PEER_PORT}"
    flags = {
        "data-dir": STATE / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "log-level": "warn",
    }
    argv = [programs.path("etcd"), *(f"--{key}={value}" for key, value in flags.items())]
    # Without waiting for the disk: the data need not outlive the machine's next start.
    return Process("etcd", [*argv, "--unsafe-no-fsync"], lambda: answers(f"{client}/health"))


def apiserver() -> Process:
    """Returns the API server, with an audit log that tests read."""
    policy = STATE / "audit-policy.yaml"
    rules = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
    write(policy, json.dumps(rules))
    flags = {
        "etcd-servers": f"http://127.0.0.1:{ETCD_PORT}",
        "bind-address": HOST_IP,
        "advertise-address": HOST_IP,
        "secure-port": API_PORT,
        "service-cluster-ip-range": SERVICE_RANGE,
        "tls-cert-file": KEYS / "apiserver.crt",
        "tls-private-key-file": KEYS / "apiserver.key",
        "client-ca-file": keys.AUTHORITY,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": ",".join(ADMISSION_PLUGINS),
        "allow-privileged": "true",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-signing-key-file": KEYS / "accounts.key",
        "service-account-key-file": KEYS / "accounts.pub",
        "kubelet-client-certificate": KEYS / "admin.crt",
        "kubelet-client-key": KEYS / "admin.key",
        "kubelet-certificate-authority": keys.AUTHORITY,
        "kubelet-preferred-address-types": "InternalIP",
        "audit-policy-file": policy,
        "audit-log-path": AUDIT_LOG,
        "audit-log-maxsize": 100,  # Megabytes.
        "audit-log-maxbackup": 2,
    }
    argv = [programs.path("kube-apiserver"), *(f"--{key}={value}" for key, value in flags.items())]
    return Process("apiserver", argv, api.is_ready, files=(policy,), patience=120)


def controller_manager() -> Process:
    """Returns the built-in controllers. They notice a dead node after 16 seconds."""
    flags = {
        "kubeconfig": keys.kubeconfig("controller-manager"),
        "service-account-private-key-file": KEYS / "accounts.key",
        "root-ca-file": keys.AUTHORITY,
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        "secure-port": 0,
        "node-monitor-period": "2s",
        "node-monitor-grace-period": "16s",
        "flex-volume-plugin-dir": STATE / "volume-plugins",  # Otherwise it is made in /usr.
    }
    argv = [programs.path("kube-controller-manager")]
    argv += [f"--{key}={value}" for key, value in flags.items()]
    return Process("controller-manager", argv, lambda: _runs("controller-manager"))


def scheduler() -> Process:
    """Returns the scheduler."""
    flags = {
        "kubeconfig": keys.kubeconfig("scheduler"),
        "leader-elect": "false",
        "secure-port": 0,
    }
    argv = [programs.path("kube-scheduler"), *(f"--{key}={value}" for key, value in flags.items())]
    return Process("scheduler", argv, lambda: _runs("scheduler"))


def proxy() -> Process:
    """Returns the service proxy: one for both nodes, whose pods share the machine's network.

    It waits for its node to exist before it answers.
    """
    config = STATE / "proxy.yaml"
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(keys.kubeconfig("proxy"))},
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": node_name(0),
        "healthzBindAddress": f"127.0.0.1:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
        "nodePortAddresses": ["primary"],
        # Answers must come back through the machine, also between two pods of the bridge.
        "iptables": {"masqueradeAll": True, "localhostNodePorts": False},
        # The machine's own connections stay as they are.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    write(config, json.dumps(settings))
    url = f"http://127.0.0.1:{PROXY_HEALTH_PORT}/livez"
    argv = [programs.path("kube-proxy"), f"--config={config}"]
    return Process("proxy", argv, lambda: answers(url), files=(config,))


def dns() -> Process:
    """Returns the cluster's name server. It knows the cluster only, so no test leans on others."""
    config = STATE / "Corefile"
    # `denial 0`: otherwise the name of a pod that has just come up is unknown for seconds.
    text = f""".:53 {{
  bind {HOST_IP}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {keys.kubeconfig("dns")}
    ttl 1
  }}
  cache 5 {{
    denial 0
  }}
}}
"""
    write(config, text)
    argv = [programs.path("coredns"), "-conf", str(config)]
    return Process("dns", argv, lambda: _accepts(HOST_IP, 53), files=(config,))


def grant() -> None:
    """Lets the name server read what it serves. The other components have built-in roles."""
    group, name = "rbac.authorization.k8s.io", "system:coredns"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
    ]
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [rule | {"verbs": ["list", "watch"]} for rule in rules],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
    }
    api.create(f"/apis/{group}/v1/clusterroles", role)
    api.create(f"/apis/{group}/v1/clusterrolebindings", binding)
