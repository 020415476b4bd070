"""Checkpoints on their way to storage, through faults of all kinds and the end of the gang."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from laptop import Laptop

from llmtrain_api.errors import StorageError
from llmtrain_trainer import checkpoints, saver
from llmtrain_trainer.records import NodeManifest, Start
from llmtrain_trainer.saver import Saver
from llmtrain_trainer.stop import Stop
from llmtrain_trainer.storage import Folder, open_folder
from llmtrain_trainer.workdir import Job

Upload = Callable[[Folder, str, Path, int], NodeManifest]


class Bench:
    """A saver over a working folder, with uploads that fail as a test says."""

    def __init__(self, laptop: Laptop, monkeypatch: pytest.MonkeyPatch, nodes: int = 1) -> None:
        run = laptop.run(workers={"nodes": nodes, "terminationGracePeriodSeconds": 10})
        self.output = open_folder(run.spec.output.uri, run.spec.storage, field="output.uri")
        self.workdir = laptop.home / "work"
        self.job = Job(run=run, restart=0, node=0, model_path="", dataset_files=[])
        self.start = Start(attempt=1, restart=0, run_uid="", launcher="x", created_at="")
        self.said: list[str] = []
        self.uploaded: list[str] = []
        self.errors: list[Exception] = []
        real = checkpoints.upload_part

        def upload(output: Folder, name: str, source: Path, node: int) -> NodeManifest:
            if self.errors:
                raise self.errors.pop()
            self.uploaded.append(name)
            return real(output, name, source, node)

        monkeypatch.setattr(checkpoints, "upload_part", upload)

    def open(self, first: Callable[[], None] = lambda: None) -> Saver:
        return Saver(
            self.output,
            self.job,
            self.start,
            self.workdir,
            say=self.said.append,
            published=lambda manifest: None,
            first=first,
        )

    def save(self, *steps: int) -> None:
        for step in steps:
            folder = self.workdir / "out" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "state").write_text(str(step))
            (folder / ".saved-rank-0").touch()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(saver, "_POLL_SECONDS", 0.02)
    return Bench(Laptop(tmp_path), monkeypatch)


def nothing() -> None:
    """Is done meanwhile."""


def down() -> StorageError:
    return StorageError("s3://runs", "down", "wait")


def ordered(seconds: float) -> Stop:
    stop = Stop(seconds)
    stop.order()
    return stop


def test_an_order_to_stop_leaves_all_of_the_grace_time_for_the_upload(bench: Bench) -> None:
    bench.errors = [down() for _ in range(20)]
    bench.save(10)
    assert bench.open().drain(0.0, 10, ordered(10), nothing, newest_first=True)
    assert bench.uploaded == ["10-a1r0"]
    assert len([each for each in bench.said if "is not in storage yet" in each]) == 1


def test_no_upload_outlasts_the_grace_time(bench: Bench) -> None:
    bench.errors = [down() for _ in range(10_000)]
    bench.save(10)
    one = bench.open()
    began = time.monotonic()
    assert not one.drain(60, 10, ordered(1), nothing, newest_first=True)
    assert time.monotonic() - began < 1
    bench.errors.clear()
    time.sleep(0.1)
    assert bench.uploaded == []


def test_when_time_is_short_the_newest_goes_first_and_older_ones_are_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "_RETRY_SECONDS", 60)
    bench.errors = [down()]
    bench.save(10, 20, 30)
    one = bench.open()
    while bench.errors:
        time.sleep(0.01)
    assert one.drain(5, 5, ordered(10), nothing, newest_first=True)
    assert bench.uploaded == ["30-a1r0"]
    assert bench.output.subfolders("checkpoints") == ["30-a1r0"]


def test_without_haste_all_are_saved_in_order(bench: Bench) -> None:
    bench.save(10, 20)
    assert bench.open().drain(5, 5, Stop(), nothing)
    assert bench.uploaded == ["10-a1r0", "20-a1r0"]


def test_the_log_is_in_storage_before_a_checkpoint_counts(bench: Bench) -> None:
    seen: list[bool] = []
    manifest = "checkpoints/10-a1r0/manifest.json"
    running = bench.open(lambda: seen.append(bench.output.read(manifest) is not None))
    bench.save(10)
    assert running.drain(10, 10, Stop(), nothing)
    assert seen == [False]
    assert bench.output.read(manifest) is not None


def test_the_thread_outlives_what_nobody_foresaw_and_tells_it_with_its_traceback(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "_RETRY_SECONDS", 0.02)
    bench.errors = [RuntimeError("strange") for _ in range(5)]
    bench.save(10)
    one = bench.open()
    while bench.errors:
        time.sleep(0.01)
    assert one.drain(5, 5, Stop(), nothing)
    assert bench.uploaded == ["10-a1r0"]
    assert bench.output.subfolders("checkpoints") == ["10-a1r0"]
    (told,) = [each for each in bench.said if "is not in storage yet" in each]
    assert "Traceback" in told
    assert "RuntimeError: strange" in told


def test_what_waits_for_a_lost_peer_does_not_hold_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "_POLL_SECONDS", 0.02)
    bench = Bench(Laptop(tmp_path), monkeypatch, nodes=2)
    bench.save(10)
    began = time.monotonic()
    assert not bench.open().drain(60, 0.1, Stop(), nothing)
    assert time.monotonic() - began < 5
    assert "the parts of nodes [1] did not arrive" in bench.said[0]


def test_each_manifest_names_the_best_checkpoint_so_far(bench: Bench) -> None:
    evaluation = {"fraction": 0.1, "everySteps": 10, "metricForBestModel": "loss"}
    run = bench.job.run.model_dump(by_alias=True)
    run["spec"]["evaluation"] = evaluation
    bench.job = Job.model_validate({**bench.job.model_dump(by_alias=True), "run": run})
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: 2.0}
    bench.save(*losses)
    for last in losses:
        logs = [{"eval_loss": losses[step], "step": step} for step in losses if step <= last]
        state = bench.workdir / "out" / f"checkpoint-{last}" / "trainer_state.json"
        state.write_text(json.dumps({"log_history": logs}))
    assert bench.open().drain(5, 5, Stop(), nothing)
    manifests, _ = checkpoints.read_manifests(bench.output)
    named = {each.step: each.best for each in manifests}
    assert named == {10: "10-a1r0", 20: "20-a1r0", 30: "20-a1r0", 40: "20-a1r0"}
    assert checkpoints.prune(bench.output, keep=1) == ["10-a1r0", "30-a1r0"]
