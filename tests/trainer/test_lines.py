from __future__ import annotations

from pathlib import Path

import pytest

from llmtrain_api.errors import StorageError
from llmtrain_api.training import Storage
from llmtrain_trainer import lines
from llmtrain_trainer.lines import SegmentedUpload, Tail
from llmtrain_trainer.storage import Folder, open_folder


def test_only_whole_lines_are_read_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text("one\ntwo\nthr")
    assert tail.read() == ["one", "two"]
    with path.open("a") as file:
        file.write("ee\r\nfour")
    assert tail.read() == ["three"]
    assert tail.read(to_the_end=True) == ["four"]


def test_an_endless_line_is_passed_on_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100_000)
    assert Tail(path).read() == ["x" * 100_000]


def test_a_letter_that_is_no_text_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\xffb\n")
    assert Tail(path).read() == ["a\ufffdb"]


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return open_folder(f"file://{tmp_path}/out", Storage(), field="output.uri", patience=0.1)


def stored(output: Folder) -> list[bytes | None]:
    return [output.read(entry.path) for entry in output.entries()]


def test_segments_hold_each_byte_once(tmp_path: Path, output: Folder) -> None:
    path = tmp_path / "log"
    upload = SegmentedUpload(path, lambda segment: f"log.{segment}")
    upload.upload(output)
    path.write_text("one\ntw")
    upload.upload(output)
    upload.upload(output)
    with path.open("a") as file:
        file.write("o\nthree")
    upload.upload(output, to_the_end=True)
    assert stored(output) == [b"one\n", b"two\nthree"]


def test_a_large_file_goes_in_pieces(
    tmp_path: Path, output: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_MOST_BYTES", 4)
    path = tmp_path / "log"
    path.write_text("0123456789\n")
    SegmentedUpload(path, lambda segment: f"log.{segment}").upload(output)
    assert stored(output) == [b"0123", b"4567", b"89\n"]


def test_a_key_that_another_has_written_is_left_alone(tmp_path: Path, output: Folder) -> None:
    output.write("log.0", b"another's")
    path = tmp_path / "log"
    path.write_text("mine\n")
    SegmentedUpload(path, lambda segment: f"log.{segment}").upload(output)
    assert stored(output) == [b"another's", b"mine\n"]


def test_after_an_outage_that_ate_the_answer_nothing_is_stored_twice(
    tmp_path: Path, output: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")
    upload = SegmentedUpload(path, lambda segment: f"log.{segment}")
    create = Folder.create

    def create_and_lose_the_answer(self: Folder, key: str, data: bytes) -> bool:
        create(self, key, data)
        raise StorageError(key, "no answer", "wait")

    monkeypatch.setattr(Folder, "create", create_and_lose_the_answer)
    with pytest.raises(StorageError):
        upload.upload(output)
    with path.open("a") as file:
        file.write("two\n")
    monkeypatch.setattr(Folder, "create", create)
    upload.upload(output)
    assert stored(output) == [b"one\n", b"two\n"]
