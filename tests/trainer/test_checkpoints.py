from __future__ import annotations

from pathlib import Path

import jobs
import pytest

from llmtrain_api.errors import DataError, StorageError
from llmtrain_api.training import Storage
from llmtrain_trainer import checkpoints
from llmtrain_trainer.records import CheckpointManifest
from llmtrain_trainer.storage import Folder, open_folder
from llmtrain_trainer.workdir import InputFile


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return open_folder(f"file://{tmp_path}/out", Storage(), field="output.uri", patience=0.1)


def make_local(folder: Path, node: int, text: str) -> Path:
    """Writes what a node has of a checkpoint: the model only on node 0."""
    folder.mkdir(parents=True)
    if node == 0:
        (folder / "adapter").write_text(text)
    (folder / f"rng_{node}").write_text(f"{text} {node}")
    (folder / f".saved-rank-{node}").touch()
    return folder


def save(
    output: Folder, tmp_path: Path, name: str, parent: str | None = None, nodes: int = 1
) -> CheckpointManifest:
    """Publishes a checkpoint whose contents are its name."""
    for node in range(nodes):
        source = make_local(tmp_path / "work" / str(node) / name, node, name)
        checkpoints.upload_part(output, name, source, node)
    parts = checkpoints.wait_for_parts(output, name, nodes, lambda: True)
    attempt, restart = checkpoints.pair_of(name)
    manifest = CheckpointManifest(
        name=name,
        parent=parent,
        attempt=attempt,
        restart=restart,
        step=int(name.split("-")[0]),
        samples=0,
        seed=0,
        world_size=nodes,
        spec_hash="",
        created_at="2026-01-01T00:00:00Z",
        files=[file for part in parts for file in part.files],
    )
    checkpoints.publish(output, manifest)
    return manifest


def ignore(message: str) -> None:
    """Takes what is told."""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_checkpoint_comes_back_as_it_was_saved(output: Folder, tmp_path: Path) -> None:
    save(output, tmp_path, "10-a1r0")
    best = checkpoints.download_best(output, tmp_path / "resume", ignore)
    assert best is not None
    assert best.folder.name == "checkpoint-10"
    assert contents(best.folder) == {"adapter": "10-a1r0", "rng_0": "10-a1r0 0"}


def test_each_node_gets_the_common_files_and_its_own(output: Folder, tmp_path: Path) -> None:
    manifest = save(output, tmp_path, "10-a1r0", nodes=2)
    folder = checkpoints.download_checkpoint(output, manifest, tmp_path / "resume", node=1)
    assert contents(folder) == {
        "adapter": "10-a1r0",
        "rng_0": "10-a1r0 0",
        "rng_1": "10-a1r0 1",
    }


DAMAGES = {
    "a flipped bit": lambda path: path.write_text("X" + path.read_text()[1:]),
    "a cut file": lambda path: path.write_text(path.read_text()[:-1]),
    "an empty file": lambda path: path.write_text(""),
    "a missing file": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["adapter", "rng_0", "node-1/rng_1"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_and_never_tried_again(
    output: Folder, tmp_path: Path, damage: object, name: str
) -> None:
    save(output, tmp_path, "10-a1r0", nodes=2)
    save(output, tmp_path, "20-a1r0", "10-a1r0", nodes=2)
    assert callable(damage)
    damage(tmp_path / "out" / "checkpoints" / "20-a1r0" / name)
    told: list[str] = []
    best = checkpoints.download_best(output, tmp_path / "resume", told.append)
    assert best is not None
    assert best.line[0].name == "10-a1r0"
    assert any("skipping checkpoint 20-a1r0" in each and name in each for each in told)
    told.clear()
    checkpoints.download_best(output, tmp_path / "resume", told.append)
    assert told == ["downloading checkpoint 10-a1r0"]


def test_with_all_checkpoints_damaged_training_starts_from_the_beginning(
    output: Folder, tmp_path: Path
) -> None:
    save(output, tmp_path, "10-a1r0")
    (tmp_path / "out" / "checkpoints" / "10-a1r0" / "adapter").write_text("")
    assert checkpoints.download_best(output, tmp_path / "resume", ignore) is None


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([], id="of which nothing but data is there"),
        pytest.param(["manifest.node-0.json"], id="of which one of two nodes is there"),
    ],
)
def test_a_checkpoint_without_a_manifest_is_none(
    output: Folder, tmp_path: Path, left: list[str]
) -> None:
    for name in ["model", *left]:
        output.write(f"checkpoints/20-a1r0/{name}", b"{}")
    save(output, tmp_path, "10-a1r0")
    best = checkpoints.download_best(output, tmp_path / "resume", ignore)
    assert best is not None
    assert best.line[0].name == "10-a1r0"


@pytest.mark.parametrize("record", ["manifest.json", "tombstone.json"])
def test_a_checkpoint_with_a_torn_record_is_skipped_by_name_for_the_one_before(
    output: Folder, tmp_path: Path, record: str
) -> None:
    save(output, tmp_path, "10-a1r0")
    save(output, tmp_path, "20-a1r0", "10-a1r0")
    output.write(f"checkpoints/20-a1r0/{record}", b'{"name": "20')
    told: list[str] = []
    best = checkpoints.download_best(output, tmp_path / "resume", told.append)
    assert best is not None
    assert best.line[0].name == "10-a1r0"
    assert f"checkpoints/20-a1r0/{record}: not a " in told[0]
    assert checkpoints.delete_torn(output, before=(2, 0)) == []


@pytest.mark.parametrize("name", ["backup", "20-a1rX", "notes-a1"])
def test_a_folder_that_is_no_checkpoint_is_passed_over(
    output: Folder, tmp_path: Path, name: str
) -> None:
    save(output, tmp_path, "10-a1r0")
    output.write(f"checkpoints/{name}/manifest.json", b"{}")
    output.write(f"checkpoints/{name}-b/file", b"{}")
    best = checkpoints.download_best(output, tmp_path / "resume", ignore)
    assert best is not None
    assert best.line[0].name == "10-a1r0"
    assert checkpoints.delete_torn(output, before=(2, 0)) == []


def test_missing_parts_are_named(output: Folder, tmp_path: Path) -> None:
    source = make_local(tmp_path / "work", 0, "x")
    checkpoints.upload_part(output, "10-a1r0", source, 0)
    with pytest.raises(StorageError, match=r"the parts of nodes \[1, 2\] did not arrive"):
        checkpoints.wait_for_parts(output, "10-a1r0", 3, lambda: True)


def test_publishing_twice_is_harmless_unless_the_files_differ(
    output: Folder, tmp_path: Path
) -> None:
    manifest = save(output, tmp_path, "10-a1r0")
    checkpoints.publish(output, manifest.model_copy(update={"created_at": "later"}))
    with pytest.raises(StorageError, match="another launcher published"):
        checkpoints.publish(output, manifest.model_copy(update={"files": []}))


def test_old_checkpoints_go_their_manifest_first(
    output: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(output, tmp_path, "10-a1r0")
    save(output, tmp_path, "20-a1r0", "10-a1r0")
    save(output, tmp_path, "30-a1r0", "20-a1r0")
    deleted: list[str] = []
    delete = Folder.delete

    def note(self: Folder, paths: list[str]) -> None:
        deleted.extend(paths)
        delete(self, paths)

    monkeypatch.setattr(Folder, "delete", note)
    assert checkpoints.prune(output, keep=2) == ["10-a1r0"]
    assert deleted[0] == "checkpoints/10-a1r0/manifest.json"
    assert {path.split("/")[1] for path in deleted} == {"10-a1r0"}
    assert output.entries("checkpoints/10-a1r0") == []


def test_what_earlier_attempts_left_torn_is_deleted_and_nothing_else(
    output: Folder, tmp_path: Path
) -> None:
    save(output, tmp_path, "10-a1r0")
    for name in ("20-a1r0", "20-a2r0"):
        output.write(f"checkpoints/{name}/model", b"")
    assert checkpoints.delete_torn(output, before=(2, 0)) == ["20-a1r0"]
    assert output.subfolders("checkpoints")[0] == "10-a1r0"
    assert output.read("checkpoints/20-a2r0/model") == b""


def test_a_local_checkpoint_is_whole_when_all_local_ranks_have_said_so(tmp_path: Path) -> None:
    def mark(step: int, *ranks: int) -> None:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for rank in ranks:
            (folder / f"done-{rank}").touch()

    mark(100, 2, 3)
    mark(20, 2, 3)
    mark(30, 2)
    (tmp_path / "checkpoint-tmp").mkdir()
    found = checkpoints.local_checkpoints(tmp_path, [2, 3], lambda rank: f"done-{rank}")
    assert [folder.name for folder in found] == ["checkpoint-20", "checkpoint-100"]


CHECKPOINT_URI = "s3://runs/a/checkpoints/10-a1r0"


def downloaded(output: Folder, tmp_path: Path) -> dict[str, InputFile]:
    """Returns the files of a checkpoint that a run reads as a model, by name."""
    source = tmp_path / "work" / "10-a1r0"
    source.mkdir(parents=True)
    (source / "model.safetensors").write_text("weights")
    part = checkpoints.upload_part(output, "10-a1r0", source, 0)
    manifest = CheckpointManifest(
        name="10-a1r0",
        attempt=1,
        restart=0,
        step=10,
        samples=0,
        seed=0,
        world_size=1,
        spec_hash="",
        created_at="2026-01-01T00:00:00Z",
        files=part.files,
    )
    checkpoints.publish(output, manifest)
    folder = tmp_path / "out" / "checkpoints" / "10-a1r0"
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: jobs.input_file(path, f"{CHECKPOINT_URI}/{path.name}") for path in files}


def test_a_checkpoint_that_is_read_as_a_model_is_held_against_its_manifest(
    output: Folder, tmp_path: Path
) -> None:
    files = downloaded(output, tmp_path)
    assert {"model.safetensors", "manifest.json"} <= files.keys()
    checkpoints.check_whole(CHECKPOINT_URI, list(files.values()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param(
            "manifest.json",
            None,
            f"{CHECKPOINT_URI}: has no manifest.json, so this checkpoint is not whole",
            id="no manifest",
        ),
        pytest.param(
            "model.safetensors",
            None,
            f"{CHECKPOINT_URI}/model.safetensors: it is not there",
            id="no weights",
        ),
        pytest.param(
            "model.safetensors",
            "weighty",
            f"{CHECKPOINT_URI}/model.safetensors: its SHA-256 is",
            id="other weights",
        ),
        pytest.param(
            "manifest.json",
            "{}",
            f"{CHECKPOINT_URI}/manifest.json: is not that of a checkpoint",
            id="another manifest",
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_not_read_as_a_model(
    name: str, change: str | None, message: str, output: Folder, tmp_path: Path
) -> None:
    files = downloaded(output, tmp_path)
    if change is None:
        del files[name]
    else:
        path = Path(files[name].path)
        path.write_text(change)
        files[name] = jobs.input_file(path, files[name].uri)
    with pytest.raises(DataError) as raised:
        checkpoints.check_whole(CHECKPOINT_URI, list(files.values()))
    assert message in str(raised.value)


def test_a_folder_that_is_no_checkpoint_has_no_manifest() -> None:
    checkpoints.check_whole("s3://models/smollm2-135m", [])
