"""The cluster as a whole: up, down, and the faults that tests ask for."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster import api, cgroups, control_plane, keys, mounts, network, node, programs, storage
from localcluster.settings import (
    KUBECONFIG,
    LOGS,
    NODES,
    REGION,
    REGISTRY,
    REPOSITORY,
    RUN,
    S3,
    STATE,
    node_name,
)
from localcluster.shell import DevclusterError, lock, say, step, wait_until, write
from localcluster.supervisor import boot_id, ensure, pid_of, recorded, runs_well, stop

_OWNER = RUN / "owner"
_BOOT = STATE / "boot-id"
_DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_KEPT = ("registry", "images.json", "images-built.json")
"""What `down` leaves: the pushed images, so that the next `up` need not push them again."""


@contextmanager
def _exclusively() -> Iterator[None]:
    """Holds the machine's lock, and makes sure that the cluster is this clone's or nobody's."""
    with lock(RUN.with_suffix(".lock")):
        if _is_foreign() and not _owner().parent.exists():
            say(f"ending the cluster of `{_owner().parent}`, a folder that is gone")
            _teardown(_owner())
        require_ours()
        yield


def require_ours() -> None:
    """Stops if another clone's cluster runs on this machine.

    Raises:
        DevclusterError: It does.
    """
    if _is_foreign():
        folder = _owner().parent
        raise DevclusterError(
            f"the cluster of `{folder}` runs on this machine, and there is room for one. "
            f"Stop it with `{folder}/devcluster/devcluster down`"
        )


def _owner() -> Path:
    """Returns the state folder of the cluster that this machine runs or may run."""
    return Path(_OWNER.read_text()) if _OWNER.exists() else STATE


def _is_foreign() -> bool:
    """Returns whether another clone's cluster runs."""
    is_alive = any(map(pid_of, recorded())) or any(map(cgroups.members, NODES))
    return is_alive and _owner() != STATE


def up() -> None:
    """Starts whatever of the cluster does not run or does not answer."""
    begin = time.monotonic()
    programs.build()
    with _exclusively():
        if _is_ruin():
            say("removing what is left of an earlier cluster: this one begins with empty stores")
            _teardown(STATE)
        _prepare()
        node_runtimes = [node.containerd(index) for index in NODES]
        ensure(control_plane.etcd(), storage.registry(), storage.s3(), *node_runtimes)
        _ensure_apiserver()
        control_plane.grant()
        ensure(control_plane.scheduler(), control_plane.dns())
        for index in NODES:
            node.import_pause_image(index)
        ensure(*map(node.kubelet, NODES), control_plane.proxy())
        if not all(api.node_is_ready(node_name(index)) for index in NODES):
            with step("nodes ready"):
                for index in NODES:
                    node.await_ready(index)
        # The controllers make it, and no pod is taken before.
        if not wait_until(lambda: api.exists(_DEFAULT_ACCOUNT), seconds=30):
            raise DevclusterError(f"no default account; see `{LOGS}/controller-manager.log`")
    say(f"  {time.monotonic() - begin:6.1f} s  in all. Use it with: . {STATE}/env")


def _is_ruin() -> bool:
    """Returns whether the cluster's stores are not to be trusted.

    So they are when the machine has been started anew, when `down` was interrupted, and when
    somebody has deleted `.devcluster` while the cluster ran.
    """
    known = _BOOT.read_text() if _BOOT.exists() else None
    return known != boot_id() and (known is not None or _OWNER.exists())


def _ensure_apiserver() -> None:
    """Has the API server and the controllers running.

    A new API server gets new controllers, as it does where they lose their leadership meanwhile:
    the old ones know only what they saw of the nodes before, and would call them dead.
    """
    apiserver = control_plane.apiserver()
    if not runs_well(apiserver):
        stop("controller-manager")
    ensure(apiserver)
    ensure(control_plane.controller_manager())


def _prepare() -> None:
    """Writes and creates what the processes need."""
    if not _OWNER.exists() and not _BOOT.exists() and network.has_kubernetes_rules():
        raise DevclusterError(
            "another Kubernetes has its rules in this machine's packet filter (chain "
            "KUBE-SERVICES). Stop that one, then remove its rules with `kube-proxy --cleanup`"
        )
    RUN.mkdir(parents=True, exist_ok=True)
    write(_OWNER, str(STATE))
    keys.create()
    write(_BOOT, boot_id())
    network.create()
    _write_env()


def _write_env() -> None:
    """Writes the file that a shell sources to use the cluster."""
    s3_keys = storage.s3_keys()
    values = {
        "KUBECONFIG": str(KUBECONFIG),
        "AWS_ENDPOINT_URL": f"http://{S3}",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": s3_keys.access,
        "AWS_SECRET_ACCESS_KEY": s3_keys.secret,
        "DENIED_AWS_ACCESS_KEY_ID": s3_keys.denied_access,
        "DENIED_AWS_SECRET_ACCESS_KEY": s3_keys.denied_secret,
        "IMAGE_REGISTRY": REGISTRY,
    }
    lines = [f"export {key}={shlex.quote(value)}" for key, value in values.items()]
    lines.append(f'export PATH="{programs.folder()}/bin:$PATH"')
    write(STATE / "env", "\n".join(lines) + "\n")


def down() -> None:
    """Ends the cluster and removes all of it but the pushed images."""
    with _exclusively(), step("cluster ended and removed"):
        _teardown(STATE)


def _teardown(state: Path) -> None:
    """Ends what runs, then removes the traces: rules, interfaces, mounts, groups, folders."""
    boot = state / _BOOT.name
    if boot.exists():
        write(boot, "ended")  # Marks a ruin, should this be interrupted.
    for index in NODES:
        cgroups.kill(index)
    # The stores are deleted below, so only the registry, whose store is kept, ends in peace.
    stop("registry", grace=5)
    stop(*recorded())
    network.remove()
    for index in NODES:
        node.remove_leftovers(index, state)
    if state.exists():
        for entry in state.iterdir():
            if entry.name not in {*_KEPT, boot.name}:
                mounts.delete(entry)
    mounts.delete(RUN)
    mounts.delete(boot)


def kill_node(index: int) -> None:
    """Cuts a node's power, so to speak."""
    with _exclusively(), step(f"{node_name(index)} killed"):
        node.kill(index)


def start_node(index: int) -> None:
    """Starts a node that was killed."""
    with _exclusively(), step(f"{node_name(index)} ready"):
        node.start(index)


def restart_apiserver(*, grace: float, seconds_away: float) -> None:
    """Ends the API server, by SIGTERM first if `grace` is not 0, and starts it after a while.

    Left to itself after SIGTERM, it waits a minute for open watches: longer than nodes may be
    silent.
    """
    with _exclusively():
        with step("apiserver ended"):
            stop("apiserver", grace=grace)
        time.sleep(seconds_away)
        _ensure_apiserver()


def status() -> bool:
    """Prints what runs. Returns whether all of it does."""
    names = recorded()
    if not names:
        say(f"no cluster runs; start one with `{REPOSITORY}/devcluster/devcluster up`")
        return False
    require_ours()
    for name in names:
        pid = pid_of(name)
        say(f"{name:22} {f'process {pid}' if pid else 'NOT RUNNING'}")
    ready = {node_name(index): api.node_is_ready(node_name(index)) for index in NODES}
    for name, is_ready in ready.items():
        say(f"{name:22} {'ready' if is_ready else 'NOT READY'}")
    return all(map(pid_of, names)) and all(ready.values())
