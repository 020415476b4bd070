"""The event files in storage, as TensorBoard itself reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llmtrain_api.training import Storage
from llmtrain_trainer.records import Start
from llmtrain_trainer.storage import Folder, open_folder
from llmtrain_trainer.tracking.tensorboard import EventFiles, first_step


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return open_folder(f"file://{tmp_path}/out", Storage(), field="output.uri", patience=0.1)


def start(attempt: int, resume_from: str | None = None) -> Start:
    return Start(
        attempt=attempt,
        restart=0,
        run_uid="",
        launcher="x",
        resume_from=resume_from,
        created_at="",
    )


def log(path: Path, *steps: int, value: float = 1.0) -> None:
    with path.open("a") as file:
        for step in steps:
            line = {"current_steps": step, "total_steps": 100, "loss": value, "lr": 0.1}
            file.write(json.dumps(line) + "\n")


def events(tmp_path: Path, begun: Start, most_bytes: int = 10**6) -> tuple[EventFiles, Path]:
    folder = tmp_path / f"work-{begun.attempt}"
    folder.mkdir()
    path = folder / "trainer_log.jsonl"
    return EventFiles(path, begun, clock=lambda: 5.0, most_bytes=most_bytes), path


def curve(tmp_path: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    reader = EventAccumulator(str(tmp_path / "out" / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out" / "tensorboard").iterdir())


def test_curves_are_there_while_the_run_trains(output: Folder, tmp_path: Path) -> None:
    uploads, path = events(tmp_path, start(1))
    uploads.upload(output)  # Before the first line: nothing to send.
    log(path, 1, 2)
    uploads.upload(output)
    assert curve(tmp_path) == [(1, 1.0), (2, 1.0)]
    log(path, 3)
    uploads.upload(output, to_the_end=True)
    assert [step for step, _ in curve(tmp_path)] == [1, 2, 3]
    assert curve(tmp_path, "train/learning_rate")[0][1] == pytest.approx(0.1)
    assert files(tmp_path) == ["events.out.tfevents.a00001r000.00000"]


def test_a_long_run_does_not_send_its_past_again(output: Folder, tmp_path: Path) -> None:
    uploads, path = events(tmp_path, start(1), most_bytes=500)
    for begin in range(0, 40, 10):
        log(path, *range(begin, begin + 10))
        uploads.upload(output)
    assert len(files(tmp_path)) == 4
    assert [step for step, _ in curve(tmp_path)] == list(range(40))


@pytest.mark.parametrize(
    ("resume_from", "kept"),
    [
        pytest.param("10-a1r0", 10, id="that goes on from a checkpoint"),
        pytest.param(None, 0, id="that begins anew"),
    ],
)
def test_each_step_stands_once_after_an_attempt(
    resume_from: str | None, kept: int, output: Folder, tmp_path: Path
) -> None:
    uploads, path = events(tmp_path, start(1))
    log(path, *range(1, 16), value=1.0)
    uploads.upload(output)
    again, path = events(tmp_path, start(2, resume_from))
    log(path, *range(kept + 1, 21), value=2.0)
    again.upload(output)
    seen = curve(tmp_path)
    assert [step for step, _ in seen] == list(range(1, 21))
    assert [value for _, value in seen] == [1.0] * kept + [2.0] * (20 - kept)


def test_what_storage_did_not_take_goes_with_the_next_call(
    output: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, path = events(tmp_path, start(1))
    log(path, 1)

    def refuse(key: str, data: bytes) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(output, "write", refuse)
        with pytest.raises(OSError, match="no"):
            uploads.upload(output)
    uploads.upload(output)
    assert curve(tmp_path) == [(1, 1.0)]


def test_the_first_step_of_an_attempt() -> None:
    assert first_step(start(1)) == 0
    assert first_step(start(2, "120-a1r0")) == 121
