"""The card of a tokenizer: what it was learned from, how good it is, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from llmtrain_api.run import RunSpec


@dataclass
class Source:
    """What one data set holds."""

    uri: str
    sha256: str
    train: int = 0
    """Documents to learn from."""
    held_out: int = 0
    """Documents to measure on."""
    size: int = 0
    """Bytes of text to learn from, in UTF-8."""


def write_card(
    name: str,
    spec: RunSpec,
    sources: Sequence[Source],
    results: Mapping[str, Any],
    versions: Mapping[str, str],
    lineage: str = "",
) -> str:
    """Returns the text of `README.md` in the folder of the tokenizer.

    Args:
        name: The run's name.
        spec: The run's spec.
        sources: What was learned from.
        results: What `all_results.json` holds.
        versions: Versions of the libraries that made it.
        lineage: What it comes from, in Markdown.
    """
    front = yaml.safe_dump(
        {"library_name": "transformers", "tags": ["llmtrain", "tokenizer"]}, sort_keys=False
    )
    settings = yaml.safe_dump(spec.to_dict().get("tokenizerTraining", {}), sort_keys=False)
    parts = [
        f"---\n{front}---\n",
        f"# {name}\n",
        f"A tokenizer of {results['vocab_size']} tokens ({results['algorithm']}), made by llmtrain."
        "\n",
        "## Data\n\n" + _data(sources),
        *(["## Lineage\n\n" + lineage] if lineage else []),
        f"## Settings\n\n```yaml\n{settings}```\n",
        "## Results\n\n" + _table(results),
        "## How to load it\n\n"
        "```python\nfrom transformers import AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```\n',
        "## Versions\n\n"
        + ", ".join(f"{library} {number}" for library, number in versions.items())
        + "\n",
    ]
    return "\n".join(parts)


def _data(sources: Sequence[Source]) -> str:
    lines = [
        "| dataset | documents | held out | bytes | SHA-256 |",
        "|---|---|---|---|---|",
        *(
            f"| `{source.uri}` | {source.train} | {source.held_out} | {source.size}"
            f" | `{source.sha256}` |"
            for source in sources
        ),
    ]
    return "\n".join(lines) + "\n\nHeld-out documents are not counted in the others.\n"


def _table(results: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in results.items():
        if value is not None:
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"
