from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

_IMPORT_ALL = """
import importlib, pkgutil, sys, llmtrain_api
for module in pkgutil.walk_packages(llmtrain_api.__path__, "llmtrain_api."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_no_operator_package_hides_the_standard_module() -> None:
    """With `operator/__init__.py`, `python -m pytest` and `python -m pip` die at the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_api_runs_on_pydantic_alone() -> None:
    """Both images carry it, so it may need nothing that only one of them has."""
    command = [sys.executable, "-c", _IMPORT_ALL]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "pydantic" in loaded
    assert not {"yaml", "kopf", "kubernetes", "aiohttp", "torch"} & set(loaded)


def test_every_module_of_the_trainer_is_on_one_side() -> None:
    """A module that the launcher's contract does not list may import torch unnoticed."""
    in_training = {"command", "gang", "worker"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (launcher,) = (one for one in contracts if one["name"].startswith("The launcher"))
    files = (ROOT / "trainer" / "llmtrain_trainer").glob("*.py")
    modules = {file.stem for file in files} - {"__init__"} | {"tracking"}
    assert {f"llmtrain_trainer.{name}" for name in modules - in_training} == set(
        launcher["source_modules"]
    )


def test_the_launcher_needs_no_more_than_its_extra() -> None:
    """Images of a `stage: Custom` install `llmtrain[launcher]` beside packages of their own."""
    modules = ("__main__", "launcher", "node", "command", "gang")
    script = (
        "import sys\nbefore = set(sys.modules)\n"
        + "".join(f"import llmtrain_trainer.{name}\n" for name in modules)
        + "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(roots - set(sys.stdlib_module_names)))"
    )
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    extra = {"cython_runtime", "obstore", "yaml"}  # The first is of PyYAML.
    of_pydantic = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions"}
    of_pydantic |= {"typing_inspection"}
    ours = {"llmtrain_api", "llmtrain_trainer"}
    unknown = {name for name in loaded if not name.startswith("_")} - extra - of_pydantic - ours
    assert unknown == set()
