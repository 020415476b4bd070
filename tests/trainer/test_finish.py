"""Results go to storage only for the newest attempt, and the first manifest over them stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from laptop import Laptop

from llmtrain_api.errors import LLMTrainError
from llmtrain_api.references import Parent
from llmtrain_api.runfile import RunFile
from llmtrain_api.training import Storage
from llmtrain_trainer import finish, owner
from llmtrain_trainer.hardware import cpu_name
from llmtrain_trainer.inputs import Downloaded
from llmtrain_trainer.records import FinalFile, FinalManifest, Start, to_bytes
from llmtrain_trainer.storage import Folder, open_folder

WEIGHTS = "adapter/adapter_model.safetensors"
MANIFEST = "model/manifest.json"


@pytest.fixture
def run(tmp_path: Path) -> RunFile:
    return Laptop(tmp_path).run()


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return open_folder(f"file://{tmp_path}/out", Storage(), field="output.uri", patience=0.1)


def begin(output: Folder, attempt: int) -> Start:
    start = Start(
        attempt=attempt, restart=0, run_uid="", launcher=f"launcher {attempt}", created_at=""
    )
    owner.begin(output, start)
    return start


def upload(
    output: Folder,
    run: RunFile,
    start: Start,
    folder: Path,
    tell: Callable[[str], None] = lambda message: None,
) -> list[FinalFile]:
    final = folder / f"final-{start.attempt}"
    (final / "adapter").mkdir(parents=True, exist_ok=True)
    (final / WEIGHTS).write_text(start.launcher)
    return finish.upload_results(
        output,
        final,
        run=run,
        start=start,
        inputs=Downloaded(folder, None, [], []),
        resolved=None,
        tell=tell,
    )


def test_the_provenance_names_the_runs_that_it_started_from(
    output: Folder, run: RunFile, tmp_path: Path
) -> None:
    parent = Parent(field="model", name="sft", uid="u", uri="s3://runs/sft/model/", spec_hash="5f")
    child = run.model_copy(update={"parents": [parent]})
    upload(output, child, begin(output, 1), tmp_path)
    told = json.loads(output.read("provenance.json") or b"")
    assert told["parents"] == [parent.to_dict()]


def test_the_manifest_names_all_files(output: Folder, run: RunFile, tmp_path: Path) -> None:
    files = upload(output, run, begin(output, 1), tmp_path)
    manifest = FinalManifest.model_validate_json(output.read(MANIFEST) or b"")
    assert manifest.files == files
    assert {file.path for file in files} >= {WEIGHTS, "provenance.json"}


def test_the_provenance_tells_what_the_weights_follow_from(
    output: Folder, run: RunFile, tmp_path: Path
) -> None:
    final = tmp_path / "final-1" / "results"
    final.mkdir(parents=True)
    (final / "all_results.json").write_text('{"weights_sha256": "cafe"}')
    upload(output, run, begin(output, 1), tmp_path)
    weights = json.loads(output.read("provenance.json") or b"")["weights"]
    assert weights["sha256"] == "cafe"
    told = weights["dependOn"]
    assert (told["nodes"], told["processesPerNode"], told["deterministic"]) == (1, 1, False)
    assert int(told["threadsPerProcess"]) >= 1
    assert {"cpu", "device"} <= told.keys()


def test_warnings_stand_in_the_results(tmp_path: Path) -> None:
    results = tmp_path / "results" / "all_results.json"
    results.parent.mkdir()
    results.write_text('{"train_loss": 1.0}')
    finish.add_warnings(tmp_path, [])
    assert json.loads(results.read_text()) == {"train_loss": 1.0}
    finish.add_warnings(tmp_path, ["one"])
    finish.add_warnings(tmp_path, ["two"])
    assert json.loads(results.read_text()) == {"train_loss": 1.0, "warnings": ["one", "two"]}


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    assert cpu_name(path) == ""
    path.write_text("processor\t: 0\nmodel name\t: Fast CPU\nflags\t\t: fpu\n")
    assert cpu_name(path) == "Fast CPU"


def test_an_attempt_that_was_overtaken_leaves_the_results_as_they_are(
    output: Folder, run: RunFile, tmp_path: Path
) -> None:
    first, second = begin(output, 1), begin(output, 2)
    upload(output, run, second, tmp_path)
    before = output.read(MANIFEST)
    with pytest.raises(LLMTrainError, match="a later attempt has begun"):
        upload(output, run, first, tmp_path)
    assert output.read(WEIGHTS) == b"launcher 2"
    assert output.read(MANIFEST) == before


def test_an_attempt_that_is_overtaken_meanwhile_does_not_finish(
    output: Folder, run: RunFile, tmp_path: Path
) -> None:
    first = begin(output, 1)

    def overtake(message: str) -> None:
        if WEIGHTS in message:
            begin(output, 2)

    with pytest.raises(LLMTrainError, match="a later attempt has begun"):
        upload(output, run, first, tmp_path, overtake)
    assert output.read(MANIFEST) is None


def test_the_first_manifest_stays(
    output: Folder, run: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = begin(output, 1), begin(output, 2)
    upload(output, run, second, tmp_path)
    before = output.read(MANIFEST)
    monkeypatch.setattr(owner, "still_newest", lambda output, start: True)  # It was, a moment ago.
    with pytest.raises(LLMTrainError, match="attempt 2 has finished this run"):
        upload(output, run, first, tmp_path)
    assert output.read(MANIFEST) == before


def test_the_manifest_of_another_spec_is_replaced(
    output: Folder, run: RunFile, tmp_path: Path
) -> None:
    other = FinalManifest(
        name="x", spec_hash="other", attempt=9, restart=0, created_at="", files=[]
    )
    output.write(MANIFEST, to_bytes(other))
    files = upload(output, run, begin(output, 1), tmp_path)
    assert FinalManifest.model_validate_json(output.read(MANIFEST) or b"").files == files


@pytest.mark.parametrize(
    ("paths", "model", "adapter"),
    [
        pytest.param(["model/model.safetensors"], True, False, id="a model"),
        pytest.param([WEIGHTS, "adapter/tokenizer.json"], False, True, id="an adapter"),
        pytest.param(["model/tokenizer.json"], True, False, id="a tokenizer alone"),
        pytest.param([MANIFEST, "model/README.md"], False, False, id="nothing that can be loaded"),
    ],
)
def test_a_folder_is_named_where_it_can_be_loaded(
    paths: list[str], model: bool, adapter: bool, output: Folder
) -> None:
    artifacts = finish.artifacts_of(output, paths)
    assert artifacts.model == (output.uri_of("model/") if model else None)
    assert artifacts.adapter == (output.uri_of("adapter/") if adapter else None)
