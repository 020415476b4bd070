"""What the pages say is held against the code: manifests, rows, links, commands and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pydantic import BaseModel

from llmtrain_api import API_VERSION
from llmtrain_api.exits import EXIT_POLICIES
from llmtrain_api.run import RunSpec
from llmtrain_api.runfile import SPEC_FIELDS_THAT_MAKE_THE_RESULT
from llmtrain_api.runrules import FORMATS
from llmtrain_api.schedule import MACROS, VARIABLES, ScheduleSpec
from llmtrain_operator.reasons import Reason, ScheduleReason

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.yaml"))


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text[: found.start()].count("\n") + 1
        yield Block(str(page.relative_to(ROOT)), line, found[1], found[2])


BLOCKS = [block for page in PAGES for block in _blocks_of(page)]


MODELS: dict[str, type[BaseModel]] = {"LLMTrainRun": RunSpec, "LLMTrainSchedule": ScheduleSpec}


def _check_manifest(document: Any) -> None:
    """Holds an object against its model; a fragment has no `kind` and need only parse."""
    model = MODELS.get(str(document.get("kind"))) if isinstance(document, dict) else None
    if model is not None:
        assert document["apiVersion"] == API_VERSION
        assert document["metadata"]["name"]
        model.model_validate(document["spec"])


def _check_snippet(block: Block) -> None:
    match block.language:
        case "yaml":
            for document in yaml.safe_load_all(block.text):
                _check_manifest(document)
        case "json":
            json.loads(block.text)
        case "jsonl":
            for line in block.text.splitlines():
                json.loads(line)
        case "python":
            compile(block.text, f"{block.page}:{block.line}", "exec")
        case _:
            assert block.language in ("bash", "text"), "write ```text, ```yaml, ... instead of ```"


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS]
)
def test_a_snippet_is_right(block: Block) -> None:
    _check_snippet(block)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in EXAMPLES])
def test_an_example_is_what_the_api_takes(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    kinds = {document["kind"] for document in documents}
    assert documents[-1]["kind"] in MODELS
    assert kinds <= {"ConfigMap", *MODELS}, "what else it needs its namespace has"
    for document in documents:
        _check_manifest(document)


def test_the_example_of_a_chain_names_its_own_runs_the_last_one_first() -> None:
    text = (ROOT / "examples/chain.yaml").read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    specs = [RunSpec.model_validate(document["spec"]) for document in documents]
    named = [one.name for spec in specs for one in spec.references.values()]
    assert named == [document["metadata"]["name"] for document in documents[1:]]


def _anchors_of(page: Path) -> set[str]:
    """Returns the anchors that a page's headings make, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{target} is not there"
        if anchor and path.suffix == ".md":
            assert anchor in _anchors_of(path), f"{target}: no such heading"


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = re.findall(r"(?:`|\$ |^)make ([a-z][a-z0-9-]*)", page.read_text("utf-8"), re.M)
    assert set(named) - targets == set()


def test_the_table_of_exit_classes_is_the_code() -> None:
    page = (ROOT / "docs/failure-modes.md").read_text(encoding="utf-8")
    for exit_class, policy in EXIT_POLICIES.items():
        yes_or_no = ["yes" if flag else "no" for flag in (policy.retry, policy.counts)]
        row = f"| `{exit_class}` | {policy.code} | {' | '.join(yes_or_no)} |"
        assert row in page, f"docs/failure-modes.md lacks the row that starts: {row}"
    rows = re.findall(r"^\| `\w+` \| \d+ \|", page, re.MULTILINE)
    assert len(rows) == len(EXIT_POLICIES)


def test_the_table_of_stages_is_the_code() -> None:
    page = (ROOT / "docs/stages/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\([^|]+ \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE)
    told = {stage: tuple(re.findall(r"`(\w+)`", formats)) for stage, formats in rows}
    assert told == FORMATS


@pytest.mark.parametrize("field", SPEC_FIELDS_THAT_MAKE_THE_RESULT)
def test_the_page_on_storage_names_what_makes_the_hash(field: str) -> None:
    page = (ROOT / "docs/storage.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^Of the spec only.*?\.$", page, re.MULTILINE | re.DOTALL)
    assert f"`{field}`" in told


@pytest.mark.parametrize("reason", [pytest.param(reason, id=reason.value) for reason in Reason])
def test_a_reason_is_explained(reason: Reason) -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert f"`{reason}`" in page, "docs/troubleshooting.md: say what it means and what to do"


@pytest.mark.parametrize("word", [*ScheduleReason, *MACROS, *(f"{{{name}}}" for name in VARIABLES)])
def test_a_word_of_schedules_is_explained(word: str) -> None:
    page = (ROOT / "docs/schedules.md").read_text(encoding="utf-8")
    assert f"`{word}`" in page, "docs/schedules.md: say what it means and what to do"
