from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def machine(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Iterable[str]], ModuleType]:
    """Returns a function that gives the checks a machine which has these programs only."""

    def has(programs: Iterable[str]) -> ModuleType:
        for program in programs:
            name, _, body = program.partition(": ")
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        checks = load("checks")
        monkeypatch.setattr(checks.node, "cni_programs", lambda: tmp_path)
        return checks

    return has


IMAGES = ("buildah", "debootstrap", "python3")
BARE_PYTHON = 'python3: [ "$2" != "import ensurepip" ]'


@pytest.mark.parametrize(
    ("own_cluster", "programs", "missing"),
    [
        pytest.param(True, IMAGES, [], id="images need few tools"),
        pytest.param(True, IMAGES[1:], ["buildah"], id="images need buildah"),
        pytest.param(
            True,
            (*IMAGES[:2], BARE_PYTHON),
            ["python3-venv"],
            id="a fresh Debian's python3 makes no environments",
        ),
        pytest.param(
            False,
            IMAGES,
            ["conntrack", "containerd", "iproute2", "iptables", "mount", "openssl", "runc"],
            id="a cluster needs many",
        ),
    ],
)
def test_missing_packages(
    machine: Callable[[Iterable[str]], ModuleType],
    own_cluster: bool,
    programs: tuple[str, ...],
    missing: list[str],
) -> None:
    assert machine(programs).missing_packages(own_cluster=own_cluster) == missing


def test_a_users_cluster_needs_the_users_own_clients(
    machine: Callable[[Iterable[str]], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = machine((*IMAGES, "kubectl"))
    monkeypatch.setattr(checks.os, "geteuid", lambda: 0)
    assert [lack.what for lack in checks.lacks(own_cluster=True)] == ["helm is missing"]


def test_a_missing_program_is_told_with_a_way_out(load: Callable[[str], ModuleType]) -> None:
    shell = load("shell")
    with pytest.raises(shell.DevclusterError, match=r"`no-such-program` is missing: .*make tools"):
        shell.run(["no-such-program"])
