"""`python -m llmtrain_api.crd [--check] FOLDER`: writes the CRDs, or says if they are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmtrain_api.crd.definition import llmtrainruns, llmtrainschedules

_HEADER = "# Made by `make crds` from operator/llmtrain_api: change the models, not this file.\n"


def render(definition: dict[str, Any]) -> str:
    """Returns `definition` as YAML, the same text each time: keys in their order, no anchors."""
    import yaml  # Here, since the package itself runs on pydantic alone.

    class Dumper(yaml.SafeDumper):
        """Writes equal parts out in full instead of as anchors."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return _HEADER + yaml.dump(definition, Dumper=Dumper, sort_keys=False, width=100)


def files() -> dict[str, str]:
    """Returns the text of each CRD by its file name."""
    return {
        "llmtrainruns.yaml": render(llmtrainruns()),
        "llmtrainschedules.yaml": render(llmtrainschedules()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the CRDs into a folder; with `--check` compares only, and returns 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m llmtrain_api.crd", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the CRDs, such as crds")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    arguments = parser.parse_args(argv)
    for name, text in files().items():
        path = arguments.folder / name
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path} is stale: run make crds\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
