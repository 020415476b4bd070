"""The folders of a command: what is laid there, and what is taken from there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from laptop import Laptop

from llmtrain_api.errors import ConfigError
from llmtrain_trainer import custom
from llmtrain_trainer.custom import QUIET_SECONDS, Checkpoints, gather, lay_out, place_of
from llmtrain_trainer.workdir import InputFile, Job, data_folder, output_folder


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "node" / "work-a1r0"
    folder.mkdir(parents=True)
    output_folder(folder).mkdir()
    return folder


def job(home: Path, node: int = 0, **changes: Any) -> Job:
    run = Laptop(home / "laptop").command("", workers={"nodes": 2})
    values: dict[str, Any] = {"run": run, "restart": 0, "node": node, "dataset_files": []}
    return Job(**{**values, **changes})


@pytest.fixture(autouse=True)
def _laptop(tmp_path: Path) -> None:
    (tmp_path / "laptop").mkdir()


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


class Life:
    """A command that saves checkpoints, and the clock on the wall."""

    def __init__(self, home: Path, workdir: Path, node: int = 0, **changes: Any) -> None:
        self.seconds = 0.0
        self.output, self.taken = output_folder(workdir), workdir / "out"
        self.checkpoints = Checkpoints(job(home, node, **changes), workdir, lambda: self.seconds)

    def after(self, seconds: float, *, ended: bool = False) -> list[str]:
        """Returns what has been taken some seconds later."""
        self.checkpoints.take(ended)
        self.seconds += seconds
        self.checkpoints.take(ended)
        return names(self.taken)


WHOLE = ["checkpoint-5/.saved-rank-0", "checkpoint-5/trainer_state.json", "checkpoint-5/weights"]


def test_a_checkpoint_is_taken_when_it_says_that_it_is_done_and_is_quiet(
    tmp_path: Path, workdir: Path
) -> None:
    life = Life(tmp_path, workdir)
    folder = write(life.output / "checkpoint-5", weights="1")
    assert life.after(60) == [], "it does not say that it is done"
    write(folder, trainer_state_json='{"global_st')
    assert life.after(60) == [], "it is being said"
    write(folder, trainer_state_json="{}")
    assert life.after(QUIET_SECONDS - 1) == [], "another process may still write"
    write(folder, weights="12")
    assert life.after(QUIET_SECONDS - 1) == [], "one did"
    assert life.after(1) == WHOLE
    assert (life.taken / "checkpoint-5" / "weights").read_text() == "12"


def test_at_the_end_of_the_command_nothing_changes_any_more(tmp_path: Path, workdir: Path) -> None:
    life = Life(tmp_path, workdir)
    write(life.output / "checkpoint-5", weights="1", trainer_state_json="{}")
    write(life.output / "checkpoint-10", weights="1", trainer_state_json="{")
    assert life.after(0, ended=True) == WHOLE


def test_a_script_of_ones_own_says_it_by_a_file(tmp_path: Path, workdir: Path) -> None:
    life = Life(tmp_path, workdir)
    (write(life.output / "checkpoint-7", weights="1") / ".complete").touch()
    assert "checkpoint-7/weights" in life.after(QUIET_SECONDS)


def test_another_node_gives_what_it_has_written(tmp_path: Path, workdir: Path) -> None:
    life = Life(tmp_path, workdir, node=1)
    write(life.output / "checkpoint-5", rng_state_1="1")
    assert life.after(QUIET_SECONDS) == ["checkpoint-5/.saved-rank-1", "checkpoint-5/rng_state_1"]


def test_a_checkpoint_is_taken_once_and_outlives_its_deletion(
    tmp_path: Path, workdir: Path
) -> None:
    life = Life(tmp_path, workdir)
    folder = write(life.output / "checkpoint-5", weights="1", trainer_state_json="{}")
    assert life.after(QUIET_SECONDS) == WHOLE
    for path in folder.iterdir():
        path.unlink()
    assert (life.taken / "checkpoint-5" / "weights").read_text() == "1"
    (life.taken / "checkpoint-5").rename(life.taken / "uploaded")
    assert not [name for name in life.after(60, ended=True) if name.startswith("checkpoint-5/")]


def test_the_checkpoint_that_training_goes_on_from_is_not_saved_again(
    tmp_path: Path, workdir: Path
) -> None:
    life = Life(tmp_path, workdir, resume_from="/elsewhere/checkpoint-5")
    write(life.output / "checkpoint-5", trainer_state_json="{}")
    assert life.after(60, ended=True) == []


@pytest.mark.parametrize("name", ["checkpoint-best", "tmp-checkpoint-5", "checkpoint-5.bak"])
def test_what_only_looks_like_a_checkpoint_is_none(
    tmp_path: Path, workdir: Path, name: str
) -> None:
    life = Life(tmp_path, workdir)
    write(life.output / name, trainer_state_json="{}")
    (life.output / "checkpoint-9").write_text("a file")
    assert life.after(60, ended=True) == []


def test_the_folders_hold_the_data_and_the_checkpoint_and_nothing_of_before(
    tmp_path: Path, workdir: Path
) -> None:
    write(output_folder(workdir), left="over")
    write(tmp_path / "cache", rows="1", shard="2")
    saved = write(tmp_path / "checkpoint-5", weights="3", deep__more="4")
    files = [
        file("s3://data/rows.bin", tmp_path / "cache" / "rows"),
        file("s3://data/shards/x/1.tar", tmp_path / "cache" / "shard"),
    ]
    done = job(tmp_path, dataset_files=files, resume_from=str(saved))
    lay_out(with_datasets(done, "s3://data/rows.bin", "s3://data/shards/"), workdir)
    assert names(data_folder(workdir)) == ["rows.bin", "shards/x/1.tar"]
    assert (data_folder(workdir) / "shards" / "x" / "1.tar").read_text() == "2"
    assert names(output_folder(workdir)) == ["checkpoint-5/deep/more", "checkpoint-5/weights"]


def file(uri: str, path: Path) -> InputFile:
    return InputFile(uri=uri, path=str(path), size=1, etag="e", sha256="s")


def with_datasets(of: Job, *uris: str) -> Job:
    datasets = [{"uri": uri, "format": "Any"} for uri in uris]
    spec = {**of.run.spec.to_dict(), "datasets": datasets}
    run = type(of.run).model_validate({**of.run.to_dict(), "spec": spec})
    return of.model_copy(update={"run": run})


def test_two_inputs_of_one_name_are_refused(tmp_path: Path, workdir: Path) -> None:
    write(tmp_path / "cache", rows="1")
    uris = ["s3://data/one/rows.bin", "s3://data/two/rows.bin"]
    files = [file(uri, tmp_path / "cache" / "rows") for uri in uris]
    done = with_datasets(job(tmp_path, dataset_files=files), *uris)
    with pytest.raises(ConfigError, match=r"two/rows.bin and another input would both be .*rows"):
        lay_out(done, workdir)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        pytest.param("s3://data/c/rows.bin", "rows.bin", id="an object by its name"),
        pytest.param("s3://data/c/d/1.tar", "d/1.tar", id="one in a folder by its path in there"),
        pytest.param("s3://data/c/d/e/2.tar", "d/e/2.tar", id="one deeper in a folder"),
    ],
)
def test_where_an_object_lies(uri: str, place: str) -> None:
    assert place_of(uri, ["s3://data/c/rows.bin", "s3://data/c/d/"]) == place


def test_all_but_checkpoints_is_the_result(tmp_path: Path, workdir: Path) -> None:
    output = output_folder(workdir)
    write(output, weights="1", all_results_json="{}", runs__events="2", manifest_json="{}")
    write(output / "checkpoint-5", weights="0")
    said: list[str] = []
    gather(workdir, workdir / "final", said.append)
    assert names(workdir / "final") == [
        ".done",
        "model/all_results.json",
        "model/runs/events",
        "model/weights",
        "results/all_results.json",
    ]
    assert said == ["manifest.json of the command is left out: the name is llmtrain's own there"]


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda output: None, id="nothing"),
        pytest.param(lambda output: write(output / "checkpoint-5", weights="1"), id="checkpoints"),
    ],
)
def test_a_command_that_leaves_no_result_is_told_so(
    workdir: Path, leave: Callable[[Path], object]
) -> None:
    leave(output_folder(workdir))
    with pytest.raises(ConfigError, match="left nothing in the folder LLMTRAIN_OUTPUT_DIR"):
        gather(workdir, workdir / "final", lambda message: None)


def test_torchrun_needs_torch_beside_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = job(tmp_path).run.spec
    assert alone.custom is not None
    spec = alone.model_copy(
        update={"custom": alone.custom.model_copy(update={"launcher": "Torchrun"})}
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    custom.check(alone)
    with pytest.raises(ConfigError, match="Torchrun needs torch in the Python environment"):
        custom.check(spec)
