"""What the machine must have, and the command that mends what it lacks."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localcluster import cgroups, node
from localcluster.settings import BRIDGE, CACHE, OWN_CLUSTER, PROGRAMS, STATE
from localcluster.shell import DevclusterError, run, say, step, succeeds

_PACKAGES = {
    # Program: the Debian package that brings it.
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
    "runc": "runc",
    "umount": "mount",
}
_CNI_PACKAGE = "containernetworking-plugins"
_VENV_PACKAGE = "python3-venv"
_IMAGE_TOOLS = ("buildah", "debootstrap")
_USERS_TOOLS = {
    "helm": "Install Helm 3.17 or newer (https://helm.sh/docs/intro/install/)",
    "kubectl": "Install kubectl (https://kubernetes.io/docs/tasks/tools/)",
}
"""For a cluster of the user's; the cluster made here brings its own."""
_SOCKET_ROOM = 60
"""Characters for the path of `.devcluster`: the kubelet's sockets add 45, and 107 are allowed."""
_PROBE_NODE = 99
_DISK_GIB = 40
_MEMORY_GIB = 6
_GO_MODULES = sorted(PROGRAMS.glob("*/go.mod"))


@dataclass(frozen=True)
class Lack:
    """Something missing, and how to mend it."""

    what: str
    remedy: str


def missing_packages(*, own_cluster: bool = OWN_CLUSTER) -> list[str]:
    """Returns the Debian packages to install: for the images only where there is a cluster."""
    tools = _IMAGE_TOOLS if own_cluster else _PACKAGES
    names = [_PACKAGES[tool] for tool in tools if not shutil.which(tool)]
    # Debian's python3 has `venv` without what it needs to put pip into one.
    if not succeeds(["python3", "-c", "import ensurepip"]):
        names.append(_VENV_PACKAGE)
    if not own_cluster and not node.cni_programs():
        names.append(_CNI_PACKAGE)
    return sorted(names)


def _go_lack() -> Lack | None:
    stated = [re.findall(r"^go (\d+)\.(\d+)", file.read_text(), re.M) for file in _GO_MODULES]
    wanted = max((int(major), int(minor)) for found in stated for major, minor in found)
    version = f"{wanted[0]}.{wanted[1]}"
    remedy = f"Install Go {version} or newer (https://go.dev/dl/) and put `go` on the PATH"
    if not shutil.which("go"):
        return Lack("Go is missing", remedy)
    found = re.search(r"go(\d+)\.(\d+)", run(["go", "version"]))
    if found and tuple(map(int, found.groups())) < wanted:
        return Lack(f"Go {found[1]}.{found[2]} is too old", remedy)
    return None


def _rights() -> Iterator[Lack]:
    """Tries what only a machine's real root may do."""
    try:
        cgroups.create(_PROBE_NODE)
        cgroups.remove(_PROBE_NODE)
    except DevclusterError as error:
        yield Lack("no control groups", str(error))
    if shutil.which("ip") and not Path(f"/sys/class/net/{BRIDGE}").exists():
        probe = "llmtrainprobe"
        if succeeds(["ip", "link", "add", probe, "type", "bridge"]):
            succeeds(["ip", "link", "delete", probe])
        else:
            yield Lack("no network bridge can be made", "Run `modprobe bridge`, as real root")
    if shutil.which("iptables") and not succeeds(["iptables", "-w", "-t", "nat", "-S"]):
        yield Lack("iptables does not work", "Run `modprobe iptable_nat`, as real root")
    succeeds(["modprobe", "overlay"])
    if "overlay" not in Path("/proc/filesystems").read_text():
        yield Lack("no overlay file system", "Use a kernel that has one")


def lacks(*, own_cluster: bool = OWN_CLUSTER) -> Iterator[Lack]:
    """Yields all that keeps the cluster, or the images for the user's own, from being made here."""
    if sys.platform != "linux":
        yield Lack("this is not Linux", "Use a Linux machine, for instance Debian 12")
        return
    if packages := missing_packages(own_cluster=own_cluster):
        command = f"apt-get install --yes --no-install-recommends {' '.join(packages)}"
        yield Lack(f"packages are missing: {', '.join(packages)}", f"Run `{command}`")
    if own_cluster:
        for tool, remedy in _USERS_TOOLS.items():
            if not shutil.which(tool):
                yield Lack(f"{tool} is missing", remedy)
        if os.geteuid() != 0:
            yield Lack("not root", "Run it as root: building images mounts their layers")
        return
    if lack := _go_lack():
        yield lack
    if len(str(STATE)) > _SOCKET_ROOM:
        remedy = f"Clone to a place whose path is shorter by {len(str(STATE)) - _SOCKET_ROOM}"
        yield Lack(f"`{STATE}` is too long for the sockets in it", remedy)
    if os.geteuid() != 0:
        yield Lack("not root", "Run it as root: it makes interfaces, mounts and control groups")
    else:
        yield from _rights()


def scarcities() -> Iterator[str]:
    """Yields what may become too little, although the cluster runs."""
    free = shutil.disk_usage(next(path for path in CACHE.parents if path.exists())).free // 2**30
    if free < _DISK_GIB and not CACHE.exists():
        yield (
            f"{free} GiB of disk are free, and all together takes {_DISK_GIB}: compiler's cache 7, "
            "programs 1, packages 7, images 11, and 7 on each of two nodes that train"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    if memory < _MEMORY_GIB:
        yield f"{memory} GiB of memory, and the cluster with two small trainers takes {_MEMORY_GIB}"


def require_essentials() -> None:
    """Stops early, with the remedy, where `up` could not work.

    Raises:
        DevclusterError: The machine lacks something.
    """
    if os.geteuid() != 0 or missing_packages():
        found = [f"{lack.what}. {lack.remedy}" for lack in lacks()]
        raise DevclusterError("; ".join(found))


def check(*, install: bool) -> bool:
    """Prints what is missing, or installs the packages among it. Returns whether all is there."""
    packages = missing_packages()
    if install and packages and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(packages)
    found = list(lacks())
    for lack in found:
        say(f"missing: {lack.what}. {lack.remedy}")
    for text in () if OWN_CLUSTER else scarcities():
        say(f"scarce: {text}")
    if not found:
        say(
            f"this machine has all that {'the images need' if OWN_CLUSTER else 'the cluster needs'}"
        )
    return not found


def _install(packages: list[str]) -> None:
    say(f"installing Debian packages: {' '.join(packages)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with step("packages installed"):
        run(["apt-get", "update", "-qq"], env=env)
        run(["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *packages], env=env)
