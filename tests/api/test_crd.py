from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmtrain_api.crd.__main__ import files, main
from llmtrain_api.crd.definition import llmtrainruns
from llmtrain_api.crd.structural import faults
from llmtrain_api.markers import VALIDATIONS

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
FILES = files()
VERSION = llmtrainruns()["spec"]["versions"][0]
ROOT_SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def test_crds_are_what_the_models_say() -> None:
    stale = [name for name, text in FILES.items() if (CRDS / name).read_text() != text]
    assert stale == [], "crds/ is stale: run make crds"


def test_crds_holds_nothing_else() -> None:
    assert {path.name for path in CRDS.iterdir()} == set(FILES)


def test_a_crd_is_yaml_of_the_definition() -> None:
    assert yaml.safe_load(FILES["llmtrainruns.yaml"]) == llmtrainruns()


def test_a_crd_has_no_anchors_which_some_readers_refuse() -> None:
    assert not re.search(r"(^|\s)[&*][a-z]+[0-9]+\b", FILES["llmtrainruns.yaml"])


def test_a_crd_fits_into_the_annotation_of_kubectl_apply() -> None:
    assert len(FILES["llmtrainruns.yaml"].encode()) < 128 * 1024  # The bound is 256 KiB.


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(tmp_path)]) == 1
    assert "llmtrainruns.yaml is stale: run make crds" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    with (tmp_path / "llmtrainruns.yaml").open("a") as file:
        file.write("# changed by hand\n")
    assert main(["--check", str(tmp_path)]) == 1


@pytest.mark.parametrize("block", ["spec", "status"])
def test_the_schema_is_structural(block: str) -> None:
    assert faults(ROOT_SCHEMA["properties"][block], block) == []


def test_columns() -> None:
    columns = VERSION["additionalPrinterColumns"]
    always = [column["name"].upper() for column in columns if not column.get("priority")]
    wide = [column["name"].upper() for column in columns if column.get("priority")]
    assert always == ["STAGE", "PHASE", "STEP", "LOSS", "ETA", "AGE"]
    assert wide == ["EPOCH", "TOKENS/S", "NODES", "ATTEMPT", "CHECKPOINT", "MODEL"]


def test_columns_and_selectors_read_fields_that_exist() -> None:
    columns = VERSION["additionalPrinterColumns"]
    selectors = VERSION["selectableFields"]
    for place in (*columns, *selectors):
        field = ROOT_SCHEMA
        names = place["jsonPath"].removeprefix(".").split(".")
        if names[0] != "metadata":
            for name in names:
                field = field["properties"][name]
            assert field["type"] in ("string", "integer")


def test_a_run_without_status_is_not_taken_for_finished() -> None:
    assert ROOT_SCHEMA["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_status_is_written_apart_from_spec() -> None:
    assert VERSION["subresources"] == {"status": {}}


def rules(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get(VALIDATIONS, [])
    for field in schema.get("properties", {}).values():
        yield from rules(field)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from rules(schema[key])


@pytest.mark.parametrize("rule", [pytest.param(r, id=r["rule"][:60]) for r in rules(ROOT_SCHEMA)])
def test_a_message_ends_in_the_way_out(rule: dict[str, Any]) -> None:
    way_out = r"\b(use|set|remove|name at least|must be a multiple)\b"
    assert re.search(way_out, rule["message"])
    assert len(rule["message"]) < 200


def fields(schema: dict[str, Any], at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{at}.{name}", field
        yield from fields(field, f"{at}.{name}")
        yield from fields(field.get("items", {}), f"{at}.{name}[]")


def test_every_default_is_explained() -> None:
    """`kubectl explain` prints descriptions only."""
    silent = [
        path
        for path, field in fields(ROOT_SCHEMA["properties"]["spec"], "spec")
        if field.get("default", {}) not in ({}, "") and "Default:" not in field["description"]
    ]
    assert silent == []
