"""The bridge that nodes and pods share, and the packet filter rules around it."""

import json
import re
from pathlib import Path

from localcluster.settings import (
    BRIDGE,
    HOST_IP,
    NODES,
    POD_GATEWAY,
    POD_RANGE,
    RUN,
    STATE,
    node_ip,
)
from localcluster.shell import run, succeeds, wait_until, write

CNI_CONFIG = STATE / "cni"
RESOLV_CONF = STATE / "resolv.conf"
_SAVED_SYSCTLS = RUN / "sysctls.json"
# What this tool, the kubelet and kube-proxy set. `down` puts the old values back.
_SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/ipv4/vs/conntrack",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_MASQUERADE = [
    *["POSTROUTING", "-s", POD_RANGE, "!", "-d", POD_RANGE, "!", "-o", BRIDGE],
    *["-m", "comment", "--comment", "llmtrain-devcluster", "-j", "MASQUERADE"],
]


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def _save_sysctls() -> None:
    if _SAVED_SYSCTLS.exists():
        return
    known = {name: _sysctl(name).read_text().strip() for name in _SYSCTLS if _sysctl(name).exists()}
    write(_SAVED_SYSCTLS, json.dumps(known))


def create() -> None:
    """Makes the bridge, the nodes' addresses and the way out for pods, as far as missing."""
    _save_sysctls()
    if not succeeds(["ip", "link", "show", BRIDGE]):
        # A bridge, because not every kernel has dummy devices. With an address of its own, it
        # keeps that when pods come and go.
        run(["ip", "link", "add", BRIDGE, "address", "02:11:22:33:44:55", "type", "bridge"])
    # The pods' gateway is set here, because the plugin wants a bridge without other addresses.
    for address in [POD_GATEWAY, *(f"{node_ip(index)}/32" for index in NODES)]:
        run(["ip", "address", "replace", address, "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    _sysctl("net/ipv4/ip_forward").write_text("1")
    if not succeeds(["iptables", "-w", "-t", "nat", "-C", *_MASQUERADE]):
        run(["iptables", "-w", "-t", "nat", "-A", *_MASQUERADE])
    write(RESOLV_CONF, f"nameserver {HOST_IP}\n", mode=0o644)
    plugin = {
        "type": "bridge",
        "bridge": BRIDGE,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(RUN / "addresses"),
            "ranges": [[{"subnet": POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    network = {"cniVersion": "0.4.0", "name": "llmtrain", "plugins": [plugin]}
    write(CNI_CONFIG / "10-llmtrain.conflist", json.dumps(network), mode=0o644)


def remove() -> None:
    """Removes the bridge, the pods' interfaces on it and all rules. The kubelets must be gone."""
    if succeeds(["ip", "link", "show", BRIDGE]):
        for port in Path(f"/sys/class/net/{BRIDGE}/brif").glob("*"):
            succeeds(["ip", "link", "delete", port.name])
        run(["ip", "link", "delete", BRIDGE])
        wait_until(lambda: not Path(f"/sys/class/net/{BRIDGE}").exists(), seconds=5)
    while succeeds(["iptables", "-w", "-t", "nat", "-D", *_MASQUERADE]):
        pass
    for program in ("iptables", "ip6tables"):
        _remove_kubernetes_rules(program)
    if _SAVED_SYSCTLS.exists():
        for name, value in json.loads(_SAVED_SYSCTLS.read_text()).items():
            if _sysctl(name).read_text().strip() != value:
                _sysctl(name).write_text(value)
        _SAVED_SYSCTLS.unlink()


def has_kubernetes_rules() -> bool:
    """Returns whether a kube-proxy, ours or another, has rules on this machine."""
    return ":KUBE-SERVICES " in run(["iptables-save", "-t", "nat"])


def _remove_kubernetes_rules(program: str) -> None:
    """Removes the chains of kube-proxy and kubelet, and the jumps to them.

    `kube-proxy --cleanup` leaves the kubelet's chains and its own canaries.
    """
    script = cleanup_script(run([f"{program}-save"]))
    if script:
        run([f"{program}-restore", "-w", "--noflush"], stdin=script)


def cleanup_script(saved: str) -> str:
    """Returns what `iptables-restore --noflush` needs to undo Kubernetes' part of `saved`."""
    script = list[str]()
    for table in f"\n{saved}".split("\n*")[1:]:
        name = table.split("\n", 1)[0]
        chains = re.findall(r"^:(KUBE-\S+)", table, re.M)
        jumps = re.findall(r"^-A ((?!KUBE-).* -j KUBE-.*)$", table, re.M)
        if chains:
            script += [f"*{name}", *(f"-D {jump}" for jump in jumps)]
            script += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
            script.append("COMMIT")
    return "".join(f"{line}\n" for line in script)
