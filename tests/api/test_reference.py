from __future__ import annotations

import re
from pathlib import Path

import other_values
import pytest
import specs
from pydantic.alias_generators import to_camel

from llmtrain_api.exits import ExitClass
from llmtrain_api.reference import main, render
from llmtrain_api.schedule import ScheduleSpec
from llmtrain_api.status import Phase

REFERENCE = Path(__file__).parents[2] / "docs" / "api.md"
TEXT = render()


def test_the_reference_is_what_the_models_say() -> None:
    assert REFERENCE.read_text() == TEXT, "docs/api.md is stale: run make crds"


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "api.md"
    assert main(["--check", str(path)]) == 1
    assert "api.md is stale: run make crds" in capsys.readouterr().err
    assert main([str(path)]) == 0
    assert main(["--check", str(path)]) == 0


def section(heading: str) -> str:
    return TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("path", sorted(other_values.OTHER_VALUES))
def test_every_field_of_a_spec_has_its_row(path: str) -> None:
    *block, name = f"spec.{path}".split(".")
    assert f"\n| `{name}` | " in section(".".join(block))


def test_fields_that_may_change_are_marked() -> None:
    marked = re.findall(r"\| `(\w+)` .*\*May change\.\*", TEXT)
    assert sorted(marked) == sorted(path.split(".")[-1] for path in other_values.MUTABLE_VALUES)


@pytest.mark.parametrize(
    ("block", "row"),
    [
        pytest.param(
            "spec.tuning", "| `method` | `LoRA` or `Full` | required |", id="a required word"
        ),
        pytest.param(
            "spec", "| `datasets` | list of [datasets](#specdatasets) |", id="a list of blocks"
        ),
        pytest.param("spec.tuning.lora", "| `targetModules` | list of string |", id="a list"),
        pytest.param("spec.tuning.lora", "| `rank` | integer, 1 to 1024 | `16` |", id="a number"),
        pytest.param(
            "spec.training", "| `epochs` | number, above 0 to 10000 |", id="an open bound"
        ),
        pytest.param("spec.training", "| `arguments` | any fields |", id="free fields"),
        pytest.param("spec.workers", "| `nodeSelector` | map of string |", id="a map"),
        pytest.param("spec.workers.resources", "| `limits` | map of quantity |", id="quantities"),
        pytest.param("spec.workers.env[]", '| `value` | string | `""` |', id="an empty default"),
        pytest.param("status", "| `startTime` | time |", id="a time"),
        pytest.param("status.attempts[]", "| `number` | integer, at least 1 |", id="one bound"),
    ],
)
def test_a_row_says_type_and_default(block: str, row: str) -> None:
    assert row in section(block)


@pytest.mark.parametrize("name", ScheduleSpec.model_fields)
def test_every_field_of_a_schedule_has_its_row(name: str) -> None:
    assert f"\n| `{to_camel(name)}` | " in section("schedule.spec")


def test_the_spec_of_a_schedules_runs_is_not_told_twice() -> None:
    assert "| `spec` | [spec](#spec) | required |" in section("schedule.spec.runTemplate")
    assert TEXT.count("| `learningRate` | number") == 1


def test_the_stages_are_named() -> None:
    (row,) = (line for line in section("spec").splitlines() if line.startswith("| `stage` |"))
    assert row.split(" | ")[1] == " or ".join(f"`{stage}`" for stage in specs.STAGES)


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        pytest.param("spec.tuning", "- `lora`: only for method LoRA", id="a rule about a block"),
        pytest.param("spec.model", "- `uri`: use s3://bucket/path", id="a rule about a value"),
        pytest.param("spec", "- `dpo`: only for stage DPO", id="a rule about a stage's block"),
        pytest.param("spec", "- `datasets`: stage KTO reads the format KTO", id="a format"),
        pytest.param(
            "spec.workers.resources",
            "- `limits`: use a quantity of Kubernetes",
            id="a rule about the values of a map",
        ),
    ],
)
def test_rules_are_told(block: str, rule: str) -> None:
    assert rule in section(block)


def test_links_lead_to_sections() -> None:
    anchors = {re.sub(r"[.\[\]]", "", heading.lower()) for heading in re.findall("## (.*)", TEXT)}
    assert set(re.findall(r"\(#(\w+)\)", TEXT)) <= anchors


def test_phases_and_exit_classes_are_named() -> None:
    assert all(f"`{phase.value}`" in section("status") for phase in Phase)
    assert all(f"| `{one.value}` |" in section("Exit classes") for one in ExitClass)
