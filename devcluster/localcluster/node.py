"""A real node: a kubelet and a containerd, with folders, sockets and ports of its own."""

import contextlib
import json
import os
import socket
from pathlib import Path

from localcluster import api, cgroups, keys, mounts, network, programs, storage
from localcluster.control_plane import answers
from localcluster.settings import HOST_IP, KEYS, RUN, STATE, node_ip, node_name
from localcluster.shell import DevclusterError, run, wait_until, write
from localcluster.supervisor import Process, ensure, stop

_SHARED_FOLDERS = (
    *("/var/log/containers", "/var/lib/cni/results", "/var/lib/cni"),
    *("/var/lib/kubelet/device-plugins", "/var/lib/kubelet"),
)
_CNI_PROGRAMS = ("/usr/lib/cni", "/opt/cni/bin")


def data_folder(index: int) -> Path:
    """Returns where a node keeps images, volumes and logs."""
    return STATE / node_name(index)


def run_folder(index: int) -> Path:
    """Returns where a node keeps sockets and mounts."""
    return RUN / node_name(index)


def cni_programs() -> str | None:
    """Returns the folder of the network plugins, if they are installed."""
    return next((path for path in _CNI_PROGRAMS if Path(path, "bridge").exists()), None)


def _socket(index: int) -> Path:
    return run_folder(index) / "containerd.sock"


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(1)
        client.connect(str(path))
        return True
    return False


def containerd(index: int) -> Process:
    """Returns a node's container runtime."""
    data, state = data_folder(index), run_folder(index)
    config = data / "containerd.toml"
    # Names as JSON strings: TOML reads those alike.
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    write(
        config,
        f"""version = 2
root = {json.dumps(str(data / "containerd"))}
state = {json.dumps(str(state / "containerd"))}
[grpc]
address = {json.dumps(str(_socket(index)))}
[plugins."io.containerd.internal.v1.opt"]
path = {json.dumps(str(data / "opt"))}
[{cri}]
sandbox_image = "{programs.PAUSE_IMAGE}"
netns_mounts_under_state_dir = true
# Without the right to lower it (CAP_SYS_RESOURCE), runc ends with "can't get final child's PID".
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = {json.dumps(cni_programs())}
conf_dir = {json.dumps(str(network.CNI_CONFIG))}
[{cri}.containerd]
discard_unpacked_layers = true
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
Root = {json.dumps(str(state / "runc"))}
[{cri}.registry]
config_path = {json.dumps(str(storage.trust_registry()))}
""",
    )
    return Process(
        f"{node_name(index)}-containerd",
        ["containerd", "-c", str(config)],
        lambda: _listens(_socket(index)),
        files=(config,),
        cgroup=cgroups.create(index),
    )


def _reserved_memory() -> str:
    """Returns half of the machine's memory: two nodes share it, so each promises a half."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{total // 2 // 2**20}Mi"


def kubelet(index: int) -> Process:
    """Returns a node's agent."""
    name, data = node_name(index), data_folder(index)
    health = 10248 + 10 * index
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node_ip(index),
        "port": 10250 + 10 * index,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": health,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(keys.AUTHORITY)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(KEYS / f"{name}.crt"),
        "tlsPrivateKeyFile": str(KEYS / f"{name}.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.group_name(index),
        "failCgroupV1": False,  # Version 1 is refused otherwise, since Kubernetes 1.35.
        "failSwapOn": False,
        "systemReserved": {"memory": _reserved_memory()},
        "clusterDNS": [HOST_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": str(network.RESOLV_CONF),
        "containerRuntimeEndpoint": f"unix://{_socket(index)}",
        "evictionHard": {},  # A disk that fills up must not end other people's tests.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "nodeLeaseDurationSeconds": 16,  # Renewed every 4 seconds, a quarter of it.
        "podLogsDir": str(data / "pod-logs"),
        "volumePluginDir": str(data / "volume-plugins"),
    }
    config = data / "kubelet.yaml"
    write(config, json.dumps(settings, indent=1))
    flags = {
        "config": config,
        "kubeconfig": keys.kubeconfig(name),
        "root-dir": data / "kubelet",
        "cert-dir": data / "kubelet-keys",
        "hostname-override": name,
        "node-ip": node_ip(index),
    }
    return Process(
        f"{name}-kubelet",
        [programs.path("kubelet"), *(f"--{key}={value}" for key, value in flags.items())],
        lambda: answers(f"http://127.0.0.1:{health}/healthz"),
        files=(config,),
        cgroup=cgroups.create(index),
    )


def import_pause_image(index: int) -> None:
    """Gives a node's containerd the image that holds a pod's namespaces open."""
    ctr = ["ctr", "-a", str(_socket(index)), "-n", "k8s.io", "images"]
    if programs.PAUSE_IMAGE not in run([*ctr, "list", "-q"]).split():
        run([*ctr, "import", programs.pause_archive()])


def await_ready(index: int) -> None:
    """Waits until the cluster counts the node as ready."""
    if not wait_until(lambda: api.node_is_ready(node_name(index)), seconds=60):
        raise DevclusterError(
            f"{node_name(index)} is not ready after 60 s. `kubectl describe node "
            f"{node_name(index)}` and `{STATE}/log/{node_name(index)}-kubelet.log` say why"
        )


def start(index: int) -> None:
    """Has a node running and ready."""
    ensure(containerd(index))
    import_pause_image(index)
    ensure(kubelet(index))
    await_ready(index)


def kill(index: int) -> None:
    """Ends all of a node at once, as if its power were cut: nothing says goodbye."""
    cgroups.kill(index)
    stop(*process_names(index))


def process_names(index: int) -> list[str]:
    """Returns the names of a node's processes."""
    return [f"{node_name(index)}-kubelet", f"{node_name(index)}-containerd"]


def remove_leftovers(index: int, state: Path) -> None:
    """Removes what a killed node leaves outside of `state`, the cluster's folder."""
    data = state / node_name(index)
    runtime = run_folder(index) / "containerd"
    for address in runtime.glob("io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    for sandbox in runtime.glob("io.containerd.grpc.v1.cri/sandboxes/*"):
        for result in Path("/var/lib/cni/results").glob(f"*-{sandbox.name}-*"):
            result.unlink()
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{data}/"):
            link.unlink()
    # The kubelet's address for device plugins has a fixed place.
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    for folder in _SHARED_FOLDERS:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()  # Only if it is empty.
    mounts.unmount_below(data)
    mounts.unmount_below(run_folder(index))
    cgroups.remove(index)
