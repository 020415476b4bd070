"""What holds of the chart's files without Helm."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "llmtrain"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def leaves(schema: dict[str, Any], values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values that have no named fields of their own, by dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        fields = schema["properties"][name]
        if "properties" in fields:
            found |= leaves(fields, value, f"{prefix}{name}.")
        else:
            found[prefix + name] = (value, fields["description"])
    return found


SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = load(CHART / "values.yaml")


def test_the_chart_the_image_and_the_package_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = load(CHART / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (project["version"],) * 2


def test_the_resource_definitions_are_not_copied() -> None:
    link = CHART / "files" / "crds"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "crds"
    assert not (CHART / "crds").exists(), "Helm never upgrades this folder"


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], where: str) -> None:
        assert set(schema["properties"]) - {"global"} == set(values), where
        assert schema["additionalProperties"] is False, where
        for name, fields in schema["properties"].items():
            assert fields["description"].endswith("."), f"{where}.{name}"
            if "properties" in fields:
                compare(fields, values[name], f"{where}.{name}")

    compare(SCHEMA, VALUES, "values")


def test_the_readme_lists_the_values_as_the_schema_explains_them() -> None:
    """Prints the table that should be there when it fails."""
    table = "".join(
        f"| `{path}` | `{json.dumps(default)}` | {text} |\n"
        for path, (default, text) in leaves(SCHEMA, VALUES).items()
    )
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    assert readme.endswith("|---|---|---|\n" + table), f"put this into README.md:\n{table}"


@pytest.mark.parametrize("path", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.name)
def test_the_base_for_kubectl_names_each_resource_definition(path: Path) -> None:
    assert f"crds/{path.name}" in load(ROOT / "kustomization.yaml")["resources"]
