from __future__ import annotations

import subprocess
import sys
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
