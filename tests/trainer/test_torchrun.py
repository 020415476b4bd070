from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from laptop import Laptop

from llmtrain_trainer import cgroup, torchrun
from llmtrain_trainer.torchrun import Place


def place(
    laptop: Laptop, nodes: int = 1, processes: int = 1, node: int = 0, restart: int = 0
) -> Place:
    run = laptop.run(
        workers={
            "nodes": nodes,
            "processesPerNode": processes,
            "terminationGracePeriodSeconds": 99,
        },
        training={"globalBatchSize": 8},
        top={"masterAddress": "first-a1-0.first"},
    )
    return Place(run, attempt=3, restart=restart, node=node)


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param(1, "127.0.0.1", id="one node needs no name"),
        pytest.param(2, "first-a1-0.first", id="several meet at node 0"),
    ],
)
def test_the_command_line(laptop: Laptop, nodes: int, expected: str) -> None:
    line = torchrun.command(
        place(laptop, nodes, 2, node=nodes - 1),
        Path("/w"),
        port=1234,
        worker_module="mine",
    )
    options = dict(itertools.pairwise(line))
    assert options["--nnodes"] == str(nodes)
    assert options["--nproc-per-node"] == "2"
    assert options["--node-rank"] == str(nodes - 1)
    assert options["--master-addr"] == expected
    assert options["--master-port"] == "1234"
    assert options["--max-restarts"] == "0"
    assert options["--rdzv-id"] == "first-a3r0"
    assert options["--shutdown-timeout"] == "99"
    assert line[-3:] == ["-m", "mine", "/w"]


@pytest.mark.parametrize(
    ("given", "cores", "processes", "threads"),
    [
        pytest.param({}, 8, 2, "4", id="cores are shared by the processes"),
        pytest.param({}, 2, 4, "1", id="each has at least one"),
        pytest.param({"OMP_NUM_THREADS": "3"}, 8, 2, "3", id="what the user says wins"),
    ],
)
def test_threads(given: dict[str, str], cores: int, processes: int, threads: str) -> None:
    made = torchrun.environment(given, cores=cores, processes=processes)
    assert made["OMP_NUM_THREADS"] == threads


def test_the_processes_do_not_get_the_storage_account() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": "y", "PATH": "/bin"}
    made = torchrun.environment(given, cores=1, processes=1)
    assert not [name for name in made if name.startswith("AWS_")]
    assert made["PATH"] == "/bin"


def test_the_processes_do_not_get_what_is_withheld() -> None:
    given = {"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}
    made = torchrun.environment(given, cores=1, processes=1, withheld=("WANDB_API_KEY",))
    assert "WANDB_API_KEY" not in made
    assert made["WANDB_MODE"] == "offline"


def test_each_restart_of_a_gang_meets_at_a_port_of_its_own(laptop: Laptop) -> None:
    assert torchrun.port_of(place(laptop, nodes=2)) == 29500
    assert torchrun.port_of(place(laptop, nodes=2, restart=3)) == 29503
    assert torchrun.port_of(place(laptop)) != torchrun.port_of(place(laptop))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({"cpu.max": "150000 100000"}, 1, id="a share of the cores, rounded down"),
        pytest.param({"cpu.max": "50000 100000"}, 1, id="half a core is one"),
        pytest.param({"cpu.max": "max 100000"}, 0, id="no limit"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1, id="cgroup v1"
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            0,
            id="no limit in v1",
        ),
        pytest.param({}, 0, id="no cgroup"),
    ],
)
def test_usable_cores(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    write(tmp_path, files)
    assert cgroup.usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        pytest.param({"memory.events": "oom 3\noom_kill 2\noom_group_kill 0\n"}, 2, id="cgroup v2"),
        pytest.param(
            {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"},
            1,
            id="v1",
        ),
        pytest.param({}, 0, id="no cgroup"),
    ],
)
def test_kills_for_memory(tmp_path: Path, files: dict[str, str], kills: int) -> None:
    write(tmp_path, files)
    assert cgroup.oom_kills(tmp_path) == kills


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_killing_a_gang_ends_processes_that_have_left_its_session(tmp_path: Path) -> None:
    sleeper = "import subprocess; subprocess.run(['sleep', '60'], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-S", "-c", sleeper], start_new_session=True)
    while not (children := torchrun.descendants(process.pid)):
        time.sleep(0.01)
    torchrun.Gang(process, tmp_path).kill()
    assert process.wait(5) == -9
    deadline = time.monotonic() + 10
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_orphans_are_collected_and_torchrun_is_left_to_its_owner() -> None:
    orphan = subprocess.Popen([sys.executable, "-S", "-c", ""])
    while is_running(orphan.pid):
        time.sleep(0.01)
    torchrun.reap(own=0)
    assert not Path(f"/proc/{orphan.pid}").exists()
    orphan.returncode = 0  # Its owner cannot know any more.
    own = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
    while is_running(own.pid):
        time.sleep(0.01)
    torchrun.reap(own=own.pid)
    assert own.wait() == 7
