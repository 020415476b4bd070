from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llmtrain_api.errors import StorageError
from llmtrain_api.training import Storage
from llmtrain_trainer.lines import SegmentedUpload
from llmtrain_trainer.logs import Logs, ProcessOutput, Shipper
from llmtrain_trainer.storage import Folder, open_folder


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs")


def test_the_lines_of_other_ranks_carry_their_rank(
    logs: Logs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {rank: [tmp_path / f"{rank}.out", tmp_path / f"{rank}.err"] for rank in (0, 1)}
    output = ProcessOutput(logs, lambda: files, tmp_path / "torchrun")
    for rank in (0, 1):
        (tmp_path / f"{rank}.out").write_text(f"hello of {rank}\n")
    (tmp_path / "1.err").write_text("trouble")
    (tmp_path / "torchrun").write_text("starting\n")
    output.follow()
    output.follow(to_the_end=True)
    assert capsys.readouterr().out.splitlines() == [
        "hello of 0",
        "[rank 1] hello of 1",
        "[rank 1] trouble",
    ]
    assert "[torchrun] starting" in logs.path.read_text()
    assert output.last_lines(1) == ["hello of 1", "trouble"]
    logs.close()


def test_a_rank_that_printed_nothing_has_the_last_lines_of_torchrun(
    logs: Logs, tmp_path: Path
) -> None:
    output = ProcessOutput(logs, dict, tmp_path / "torchrun")
    (tmp_path / "torchrun").write_text("exitcode: -9\n\n")
    output.follow()
    assert output.last_lines(0) == output.last_lines(None) == ["exitcode: -9"]
    logs.close()


def test_many_threads_print_whole_lines(logs: Logs) -> None:
    def print_lines(name: str) -> None:
        for number in range(200):
            logs.emit(f"{name}{number}" * 20, quiet=True)

    threads = [threading.Thread(target=print_lines, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = sorted(logs.path.read_text().splitlines())
    assert written == sorted(f"{name}{number}" * 20 for name in "abcd" for number in range(200))
    logs.close()


class TestShipper:
    @pytest.fixture
    def output(self, tmp_path: Path) -> Folder:
        return open_folder(f"file://{tmp_path}/out", Storage(), field="output.uri", patience=0.1)

    def test_what_is_left_is_shipped_at_the_end(self, output: Folder, tmp_path: Path) -> None:
        (tmp_path / "log").write_text("one\ntwo")
        shipper = Shipper(print, every=60)
        shipper.add(output, SegmentedUpload(tmp_path / "log", str))
        assert shipper.close(5)
        assert output.read("0") == b"one\ntwo"

    def test_what_nobody_foresaw_is_told_and_the_thread_goes_on(
        self, output: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create, errors = Folder.create, [OSError(28, "no space left"), KeyError("e_tag")]

        def broken(folder: Folder, path: str, data: bytes) -> bool:
            if errors:
                raise errors.pop()
            return create(folder, path, data)

        messages: list[str] = []
        monkeypatch.setattr(Folder, "create", broken)
        (tmp_path / "log").write_text("one\n")
        shipper = Shipper(messages.append, every=0.01)
        shipper.add(output, SegmentedUpload(tmp_path / "log", str))
        while errors:
            time.sleep(0.01)
        assert shipper.close(5)
        assert output.read("0") == b"one\n"
        assert ["Traceback" in each for each in messages] == [True, True]

    def test_logs_that_do_not_reach_storage_are_no_success(
        self, output: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(folder: Folder, path: str, data: bytes) -> bool:
            raise RuntimeError("strange")

        monkeypatch.setattr(Folder, "create", broken)
        (tmp_path / "log").write_text("one\n")
        shipper = Shipper(lambda message: None, every=60)
        shipper.add(output, SegmentedUpload(tmp_path / "log", str))
        shipper.add(output, SegmentedUpload(tmp_path / "empty", str))
        assert not shipper.close(5)

    def test_an_outage_is_said_once_and_nothing_is_lost(
        self, output: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create, down, said = Folder.create, threading.Event(), threading.Event()
        down.set()

        def flaky(folder: Folder, path: str, data: bytes) -> bool:
            if down.is_set():
                raise StorageError(path, "down", "wait")
            return create(folder, path, data)

        messages: list[str] = []

        def say(message: str) -> None:
            messages.append(message)
            said.set()

        monkeypatch.setattr(Folder, "create", flaky)
        (tmp_path / "log").write_text("one\n")
        shipper = Shipper(say, every=0.01)
        shipper.add(output, SegmentedUpload(tmp_path / "log", str))
        assert said.wait(5)
        shipper.flush()
        down.clear()
        assert shipper.close(5)
        assert output.read("0") == b"one\n"
        assert len(messages) == 1
