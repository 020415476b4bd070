import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = sorted((ROOT / "requirements").glob("*.txt"))


def named(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return match[0].lower().replace("_", "-")


@pytest.mark.parametrize("pins", PINS, ids=lambda path: path.name)
def test_pins_have_a_version_and_a_digest_and_no_host(pins: Path) -> None:
    text = pins.read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", block), block
        assert "--hash=sha256:" in block, block


@pytest.mark.parametrize("extra", ["operator", "trainer"])
def test_all_that_the_project_asks_for_is_pinned(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"][extra]}
    lines = (ROOT / "requirements" / f"{extra}.txt").read_text().splitlines()
    pinned = {named(line) for line in lines if re.match(r"\w", line)}
    assert {named(one) for one in wanted} <= pinned, "run requirements/compile.sh"
