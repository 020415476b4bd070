"""The scripts' long steps: what they start ends with them, and no two `make` disturb each other."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLEEP = """bash -c 'trap "touch tidied; exit" INT; echo $$ >group; sleep 300'"""
DEAF_SLEEP = """bash -c 'trap "" INT TERM; echo $$ >group; sleep 300'"""


def script(folder: Path, text: str) -> subprocess.Popen[str]:
    """Starts a script that uses `steps.sh`, as a terminal would: SIGINT is not ignored."""
    command = f"set -euo pipefail; . {ROOT}/devcluster/steps.sh; PATIENCE=1; {text}"
    return subprocess.Popen(
        ["env", "--default-signal=INT", "bash", "-c", command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def group_is_gone(folder: Path) -> bool:
    try:
        os.killpg(int((folder / "group").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("number", "stage", "command"),
    [
        pytest.param(signal.SIGINT, "step One {}", SLEEP, id="Ctrl-C in a step"),
        pytest.param(signal.SIGTERM, "step One {}", SLEEP, id="SIGTERM in a step"),
        pytest.param(signal.SIGINT, "start One {}; wait_for_started", SLEEP, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, "start One {}; wait_for_started", SLEEP, id="SIGTERM"),
        pytest.param(signal.SIGHUP, "start One {}; wait_for_started", SLEEP, id="terminal closed"),
        pytest.param(signal.SIGINT, "step One {}", DEAF_SLEEP, id="Ctrl-C that a program ignores"),
    ],
)
def test_what_runs_ends_with_an_interrupted_script(
    tmp_path: Path, number: signal.Signals, stage: str, command: str
) -> None:
    process = script(tmp_path, stage.format(command))
    group = tmp_path / "group"
    wait_for(lambda: group.exists() and group.read_text() != "")
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert "Failed" not in output
    wait_for(lambda: group_is_gone(tmp_path))
    assert (tmp_path / "tidied").exists() == (command == SLEEP)


def test_the_first_failure_ends_the_rest_and_shows_its_log(tmp_path: Path) -> None:
    text = f"start Long {SLEEP}; start Broken bash -c 'sleep 1; echo no disk; exit 3'"
    process = script(tmp_path, f"{text}; wait_for_started; echo never")
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    shown = "Failed: Broken. The end of .devcluster/log/steps/Broken-.log:\nno disk\n"
    assert shown in output
    assert "never" not in output
    wait_for(lambda: group_is_gone(tmp_path))


def test_steps_tell_how_long_they_took(tmp_path: Path) -> None:
    text = "step One true; start Two sleep 1; start Three true; wait_for_started; echo whole"
    process = script(tmp_path, text)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert re.search(r"^One \.\.\. +0 s$", output, re.M)
    assert re.search(r"^Two: done +[12] s$", output, re.M)
    assert re.search(r"^Three: done +[01] s$", output, re.M)
    assert output.endswith("whole\n")


def test_two_make_venv_at_once_install_once(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho begin >>calls\nsleep 0.3\necho end >>calls\n")
    uv.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    makes = [subprocess.Popen(["make", "venv", f"UV={uv}"], cwd=tmp_path, env=env) for _ in "12"]
    assert [each.wait(timeout=20) for each in makes] == [0, 0]
    assert (tmp_path / "calls").read_text().split() == ["begin", "end"] * 3
