from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from laptop import Laptop

from llmtrain_api.errors import DataError
from llmtrain_api.training import Storage
from llmtrain_trainer import inputs
from llmtrain_trainer.records import FrozenInput, FrozenInputs
from llmtrain_trainer.storage import Folder, StoredObject, open_folder
from llmtrain_trainer.transfer import sha256_of


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


@pytest.fixture
def output(laptop: Laptop) -> Folder:
    return open_folder(f"file://{laptop.out}", Storage(), field="output.uri")


def ignore(message: str) -> None:
    """Takes what is told."""


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        pytest.param(
            ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "x.gguf"],
            ["config.json", "model.safetensors"],
            id="the same weights in other formats are left out",
        ),
        pytest.param(
            ["config.json", "pytorch_model.bin"],
            ["config.json", "pytorch_model.bin"],
            id="without safetensors nothing is left out",
        ),
        pytest.param(
            ["config.json", "onnx/model.onnx", ".git/HEAD"],
            ["config.json"],
            id="nothing from below",
        ),
    ],
)
def test_what_is_needed_of_a_model_folder(names: list[str], needed: list[str]) -> None:
    entries = [StoredObject(name, 1, "", datetime.now(UTC)) for name in names]
    assert [entry.path for entry in inputs.needed_files(entries)] == needed


FROZEN = FrozenInputs(
    inputs=[
        FrozenInput(uri="s3://a", size=1, etag="x"),
        FrozenInput(uri="s3://b", size=2, etag="y"),
    ]
)


@pytest.mark.parametrize(
    ("present", "problem"),
    [
        pytest.param({"s3://a": (1, "x"), "s3://b": (2, "y")}, None, id="all as it was"),
        pytest.param(
            {"s3://a": (1, "x"), "s3://b": (2, "y"), "s3://c": (3, "z")},
            None,
            id="a new one beside",
        ),
        pytest.param({"s3://a": (1, "x")}, "s3://b: it is no longer there", id="one is gone"),
        pytest.param(
            {"s3://a": (1, "z"), "s3://b": (2, "y")}, "s3://a: it changed since", id="one changed"
        ),
    ],
)
def test_inputs_are_held_against_those_of_the_first_attempt(
    present: dict[str, tuple[int, str]], problem: str | None
) -> None:
    now = FrozenInputs(
        inputs=[FrozenInput(uri=uri, size=size, etag=etag) for uri, (size, etag) in present.items()]
    )
    if problem is None:
        inputs.compare(FROZEN, now)
        return
    with pytest.raises(DataError, match=problem):
        inputs.compare(FROZEN, now)


def test_inputs_are_downloaded_with_their_hashes(laptop: Laptop, output: Folder) -> None:
    run = laptop.run()
    told: list[str] = []
    frozen = inputs.freeze(output, run)
    fetched = inputs.fetch(run, frozen, laptop.home / "scratch", told.append)
    assert fetched.model is not None
    assert {path.name for path in fetched.model.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    (rows,) = fetched.dataset_files
    assert (
        rows.sha256 == sha256_of(laptop.home / "data" / "rows.jsonl") == sha256_of(Path(rows.path))
    )
    assert told[-1] == f"downloading file://{laptop.home}/data/rows.jsonl (0/0 MB)"


def test_an_adapter_is_downloaded_beside_its_base(laptop: Laptop, output: Folder) -> None:
    adapter = laptop.home / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    model = {"uri": f"file://{laptop.home}/model", "adapterUri": f"file://{adapter}/"}
    run = laptop.run(stage="Evaluate", model=model, tuning=None, training=None)
    frozen = inputs.freeze(output, run)
    fetched = inputs.fetch(run, frozen, laptop.home / "scratch", ignore)
    assert fetched.adapter is not None
    assert [path.name for path in fetched.adapter.iterdir()] == ["adapter_config.json"]
    assert f"file://{adapter}/adapter_config.json" in {file.uri for file in fetched.all_files}


def test_what_is_on_disk_is_not_downloaded_again(laptop: Laptop, output: Folder) -> None:
    run = laptop.run()
    frozen = inputs.freeze(output, run)
    first = inputs.fetch(run, frozen, laptop.home / "scratch", ignore)
    told: list[str] = []
    assert inputs.fetch(run, frozen, laptop.home / "scratch", told.append) == first
    assert told == []


def test_a_changed_model_does_not_meet_the_files_of_the_old_one(
    laptop: Laptop, output: Folder
) -> None:
    run = laptop.run()
    first = inputs.fetch(run, inputs.freeze(output, run), laptop.home / "scratch", ignore)
    (laptop.home / "model" / "tokenizer.json").write_text("[]")
    second = inputs.fetch(run, inputs.list_inputs(run), laptop.home / "scratch", ignore)
    assert first.model != second.model


@pytest.mark.parametrize("name", ["model/config.json", "data/rows.jsonl"])
def test_an_input_that_changes_before_it_is_downloaded_is_refused(
    laptop: Laptop, output: Folder, name: str
) -> None:
    run = laptop.run()
    frozen = inputs.freeze(output, run)
    (laptop.home / name).write_text((laptop.home / name).read_text().swapcase())
    with pytest.raises(DataError, match=f"{name}: it changed since the run began"):
        inputs.fetch(run, frozen, laptop.home / "scratch", ignore)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        pytest.param("model", "the model folder is empty", id="an empty model folder"),
        pytest.param("data/rows.jsonl", "there is no such object", id="a missing data set"),
    ],
)
def test_a_missing_input_is_named(laptop: Laptop, uri: str, problem: str) -> None:
    path = laptop.home / uri
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()
    with pytest.raises(DataError, match=f"{uri}/?: {problem}"):
        inputs.list_inputs(laptop.run())


def test_a_folder_is_downloaded_with_all_that_is_in_it(laptop: Laptop, output: Folder) -> None:
    deeper = laptop.home / "data" / "more"
    deeper.mkdir()
    (deeper / "shard.tar").write_text("1")
    folder = [{"uri": f"file://{laptop.home}/data/", "format": "Any"}]
    run = laptop.command("", datasets=folder)
    fetched = inputs.fetch(run, inputs.freeze(output, run), laptop.home / "scratch", ignore)
    uris = [file.uri.removeprefix(f"file://{laptop.home}/") for file in fetched.dataset_files]
    assert uris == ["data/more/shard.tar", "data/rows.jsonl"]
    assert [Path(file.path).read_text()[:1] for file in fetched.dataset_files] == ["1", "{"]
    (laptop.home / "data" / "rows.jsonl").unlink()
    (deeper / "shard.tar").unlink()
    with pytest.raises(DataError, match="data/: the folder is empty"):
        inputs.list_inputs(run)
