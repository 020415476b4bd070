import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def supervisor(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    module: Any = load("supervisor")
    for name in ("RECORDS", "LOGS", "STATE"):
        monkeypatch.setattr(module, name, tmp_path)
    yield module
    module.stop(*module.recorded())


def make_process(supervisor: Any, *argv: str, files: tuple[Path, ...] = ()) -> Any:
    def healthy() -> bool:
        return supervisor.pid_of("one") is not None

    return supervisor.Process("one", list(argv) or ["sleep", "60"], healthy, files=files)


def test_a_process_is_started_once_and_ended(supervisor: Any) -> None:
    process = make_process(supervisor)
    supervisor.ensure(process)
    pid = supervisor.pid_of("one")
    supervisor.ensure(process)
    assert supervisor.pid_of("one") == pid
    supervisor.stop("one")
    assert supervisor.pid_of("one") is None
    assert supervisor.recorded() == []


def test_another_program_in_its_place_is_not_taken_for_it(supervisor: Any) -> None:
    process = supervisor.Process("one", ["sleep", "60"], lambda: True)
    with pytest.raises(Exception, match="another program answers in place of one"):
        supervisor.ensure(process)
    assert supervisor.recorded() == []


def test_a_process_that_died_is_started_again(supervisor: Any) -> None:
    process = make_process(supervisor)
    supervisor.ensure(process)
    first = supervisor.pid_of("one")
    supervisor.send("one", signal.SIGKILL)
    assert supervisor.wait_until(lambda: supervisor.pid_of("one") is None, seconds=5)
    supervisor.ensure(process)
    assert supervisor.pid_of("one") not in {None, first}


def test_a_changed_configuration_file_means_a_new_process(supervisor: Any, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("old")
    process = make_process(supervisor, files=(config,))
    supervisor.ensure(process)
    first = supervisor.pid_of("one")
    config.write_text("new")
    supervisor.ensure(process)
    assert supervisor.pid_of("one") != first


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"started": 1}, id="its id belongs to another process since"),
        pytest.param({"boot": "earlier"}, id="the machine has been started anew since"),
    ],
)
def test_a_stale_record_is_nobodys(
    supervisor: Any, tmp_path: Path, change: dict[str, object]
) -> None:
    supervisor.ensure(make_process(supervisor))
    pid = supervisor.pid_of("one")
    record = tmp_path / "one.json"
    whole = record.read_text()
    record.write_text(json.dumps(json.loads(whole) | change))
    assert supervisor.pid_of("one") is None
    supervisor.send("one", signal.SIGKILL)
    os.kill(pid, 0)  # It lives.
    record.write_text(whole)


def test_a_process_that_ends_at_once_is_reported_with_its_last_words(supervisor: Any) -> None:
    process = make_process(supervisor, "sh", "-c", "echo address in use; exit 1")
    process = dataclasses.replace(process, healthy=lambda: False)
    with pytest.raises(supervisor.DevclusterError, match=r"one ended.*\n.*address in use"):
        supervisor.ensure(process)
