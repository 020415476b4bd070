from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmtrain_api.crd.__main__ import files, main
from llmtrain_api.crd.definition import llmtrainruns, llmtrainschedules
from llmtrain_api.crd.structural import faults
from llmtrain_api.markers import VALIDATIONS

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
FILES = files()
DEFINITIONS = {"llmtrainruns": llmtrainruns(), "llmtrainschedules": llmtrainschedules()}
VERSIONS = {name: one["spec"]["versions"][0] for name, one in DEFINITIONS.items()}
ROOT_SCHEMAS = {name: one["schema"]["openAPIV3Schema"] for name, one in VERSIONS.items()}
of_each_kind = pytest.mark.parametrize("kind", DEFINITIONS)


def test_crds_are_what_the_models_say() -> None:
    stale = [name for name, text in FILES.items() if (CRDS / name).read_text() != text]
    assert stale == [], "crds/ is stale: run make crds"


def test_crds_holds_nothing_else() -> None:
    assert {path.name for path in CRDS.iterdir()} == set(FILES)


@of_each_kind
def test_a_crd_is_yaml_of_the_definition(kind: str) -> None:
    assert yaml.safe_load(FILES[f"{kind}.yaml"]) == DEFINITIONS[kind]


@of_each_kind
def test_a_crd_has_no_anchors_which_some_readers_refuse(kind: str) -> None:
    assert not re.search(r"(^|\s)[&*][a-z]+[0-9]+\b", FILES[f"{kind}.yaml"])


@of_each_kind
def test_a_crd_fits_into_the_annotation_of_kubectl_apply(kind: str) -> None:
    # `kubectl apply` keeps a copy in an annotation, which may be 256 KiB in all.
    assert len(FILES[f"{kind}.yaml"].encode()) < 192 * 1024


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(tmp_path)]) == 1
    assert "llmtrainruns.yaml is stale: run make crds" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    with (tmp_path / "llmtrainruns.yaml").open("a") as file:
        file.write("# changed by hand\n")
    assert main(["--check", str(tmp_path)]) == 1


@of_each_kind
@pytest.mark.parametrize("block", ["spec", "status"])
def test_the_schema_is_structural(kind: str, block: str) -> None:
    assert faults(ROOT_SCHEMAS[kind]["properties"][block], block) == []


@pytest.mark.parametrize(
    ("kind", "expected", "expected_wide"),
    [
        (
            "llmtrainruns",
            ["STAGE", "PHASE", "STEP", "LOSS", "ETA", "AGE"],
            ["EPOCH", "TOKENS/S", "MFU", "NODES", "ATTEMPT", "CHECKPOINT", "MODEL"],
        ),
        (
            "llmtrainschedules",
            ["SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE"],
            ["READY", "SUCCESS"],
        ),
    ],
)
def test_columns(kind: str, expected: list[str], expected_wide: list[str]) -> None:
    columns = VERSIONS[kind]["additionalPrinterColumns"]
    always = [column["name"].upper() for column in columns if not column.get("priority")]
    wide = [column["name"].upper() for column in columns if column.get("priority")]
    assert always == expected
    assert wide == expected_wide


@of_each_kind
def test_columns_and_selectors_read_fields_that_exist(kind: str) -> None:
    columns = VERSIONS[kind]["additionalPrinterColumns"]
    selectors = VERSIONS[kind].get("selectableFields", [])
    for place in (*columns, *selectors):
        field = ROOT_SCHEMAS[kind]
        names = place["jsonPath"].removeprefix(".").split(".")
        if names[0] != "metadata" and "[" not in place["jsonPath"]:
            for name in names:
                field = field["properties"][name]
            assert field["type"] in ("string", "integer", "boolean")


@of_each_kind
def test_an_object_without_status_is_not_taken_for_settled(kind: str) -> None:
    assert ROOT_SCHEMAS[kind]["properties"]["status"]["default"] == {"observedGeneration": -1}


@of_each_kind
def test_status_is_written_apart_from_spec(kind: str) -> None:
    assert VERSIONS[kind]["subresources"] == {"status": {}}


def rules(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get(VALIDATIONS, [])
    for field in schema.get("properties", {}).values():
        yield from rules(field)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from rules(schema[key])


RULES = {rule["rule"]: rule for schema in ROOT_SCHEMAS.values() for rule in rules(schema)}


@pytest.mark.parametrize("rule", [pytest.param(r, id=r["rule"][:60]) for r in RULES.values()])
def test_a_message_ends_in_the_way_out(rule: dict[str, Any]) -> None:
    way_out = r"\b(use|set|remove|name at least|must be a multiple)\b"
    assert re.search(way_out, rule["message"])
    assert len(rule["message"]) < 200


def fields(schema: dict[str, Any], at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{at}.{name}", field
        yield from fields(field, f"{at}.{name}")
        yield from fields(field.get("items", {}), f"{at}.{name}[]")


@of_each_kind
def test_every_default_is_explained(kind: str) -> None:
    """`kubectl explain` prints descriptions only."""
    silent = [
        path
        for path, field in fields(ROOT_SCHEMAS[kind]["properties"]["spec"], "spec")
        if field.get("default", {}) not in ({}, "") and "Default:" not in field["description"]
    ]
    assert silent == []
