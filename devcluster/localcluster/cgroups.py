"""A control group per node, on version 1 and version 2 of the kernel's interface.

All that a node runs (kubelet, containerd, shims, containers) lives below its group, so a node
can be killed whole and nothing else with it.
"""

import contextlib
import os
import signal
from functools import partial
from pathlib import Path

from localcluster.settings import node_name
from localcluster.shell import DevclusterError, wait_until

ROOT = Path("/sys/fs/cgroup")


def is_v2() -> bool:
    """Returns whether the machine has the unified hierarchy only."""
    return (ROOT / "cgroup.controllers").exists()


def group_name(index: int) -> str:
    """Returns the name of a node's group, as the kubelet's `cgroupRoot` wants it."""
    return f"/llmtrain-{node_name(index)}"


def _hierarchies() -> list[Path]:
    if is_v2():
        return [ROOT]
    return [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _groups(index: int) -> list[Path]:
    return [folder / group_name(index).lstrip("/") for folder in _hierarchies()]


def _tracking(index: int) -> Path:
    """Returns the node's group in the hierarchy by which its processes are found."""
    return (ROOT if is_v2() else ROOT / "pids") / group_name(index).lstrip("/")


def create(index: int) -> Path:
    """Makes a node's groups and returns the one for its kubelet and containerd.

    Raises:
        DevclusterError: The kernel or a surrounding container does not allow it.
    """
    try:
        for group in _groups(index):
            group.mkdir(exist_ok=True)
        if is_v2():
            _delegate(ROOT)
            _delegate(_tracking(index))
        system = _tracking(index) / "system"  # Version 2 wants processes in leaves only.
        system.mkdir(exist_ok=True)
    except OSError as error:
        raise DevclusterError(
            f"cannot make the control group of {node_name(index)}: {error}. "
            "Run on the machine itself, or in a container that is privileged and owns its cgroups"
        ) from error
    return system


def _delegate(group: Path) -> None:
    """Lets the children of a group, on version 2, limit what a pod may use."""
    control = group / "cgroup.subtree_control"
    for controller in (group / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # Some cannot be had; those below must.
            control.write_text(f"+{controller}")
    if lacking := {"cpu", "cpuset", "memory", "pids"} - set(control.read_text().split()):
        raise OSError(f"`{control}` does not take {', '.join(sorted(lacking))}")


def members(index: int) -> list[int]:
    """Returns the ids of all processes of a node."""
    pids: list[int] = []
    for folder, _, _ in os.walk(_tracking(index)):
        with contextlib.suppress(FileNotFoundError, OSError):
            pids += map(int, (Path(folder) / "cgroup.procs").read_text().split())
    return pids


def kill(index: int) -> None:
    """Sends SIGKILL to all processes of a node until none is left."""

    def empty() -> bool:
        pids = members(index)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    if not wait_until(empty, seconds=15):
        raise DevclusterError(f"SIGKILL did not end processes {members(index)}")


def remove(index: int) -> None:
    """Removes a node's groups, which must hold no process."""
    for group in _groups(index):
        for folder, _, _ in os.walk(group, topdown=False):
            wait_until(partial(_remove_one, Path(folder)), seconds=5)


def _remove_one(folder: Path) -> bool:
    """Returns whether a group is gone. The kernel refuses while its last process is dying."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
