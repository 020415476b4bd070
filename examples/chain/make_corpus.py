"""Makes the corpus of tokenizer and pretraining: what Python's own library says of itself.

    PYTHONPATH=examples/demo python examples/chain/make_corpus.py

A document is a page of the language reference that comes with `help()`, or a module, function or
class of the standard library with its signatures and docstrings. They are read, not imported, so
the corpus is a function of the Python installed alone. Takes some ten seconds.

Held out are the documents that the hash of their content chooses, and all documentation of the
functions that SFT and DPO hold out: what is asked about them later was never in the corpus.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import make_dataset
import make_questions
import places

HELD_OUT_SHARE = 0.05
SHORTEST = 40  # Characters of a docstring: shorter ones say next to nothing.
# Tests say little in words, the others are not the library.
LEFT_OUT = {
    *("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"),
    *("ensurepip", "idlelib", "lib2to3", "pydoc_data", "turtledemo"),
}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def reference_pages() -> list[str]:
    """Returns the pages of the language reference, as `help("for")` shows them."""
    from pydoc_data import topics

    return [topics.topics[name].strip() for name in sorted(topics.topics)]


def library_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yields the dotted names and files of the library's modules, in the order of their paths."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not LEFT_OUT.intersection(parts):
            yield ".".join(parts).removesuffix(".__init__"), path


def entries(module: str, source: str) -> Iterator[list[str]]:
    """Yields a document per module, function and class, as a list of its documented parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Old escapes in strings are not ours to mend.
        tree = ast.parse(source)
    yield list(parts_of(module, [tree]))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            inside = [each for each in node.body if isinstance(each, Documented)]
            own = parts_of(f"{module}.{node.name}", [node])
            yield [*own, *parts_of(f"{module}.{node.name}", inside, named=True)]
        elif isinstance(node, Documented):
            yield list(parts_of(module, [node], named=True))


def parts_of(prefix: str, nodes: Iterable[Documented], *, named: bool = False) -> Iterator[str]:
    """Yields `name(arguments)` and docstring of each node that has one worth reading."""
    for node in nodes:
        documentation = ast.get_docstring(node) or ""
        if len(documentation) < SHORTEST:
            continue
        name = f"{prefix}.{getattr(node, 'name', '')}" if named else prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name += f"({ast.unparse(node.args)})"
        yield f"{name}\n\n{documentation}"


def without(documents: Iterable[list[str]], answers: Sequence[str]) -> Iterator[str]:
    """Yields the documents without the parts that say one of `answers` or were there before."""
    seen: set[str] = set()
    for parts in documents:
        kept = []
        for part in parts:
            # Many a method has the docstring of the one that it overrides.
            words = " ".join(part.split("\n\n", 1)[-1].split())
            if words not in seen and not any(answer in words for answer in answers):
                kept.append(part)
            seen.add(words)
        if kept:
            yield "\n\n".join(kept)


def is_held_out(row: dict[str, str]) -> bool:
    """Returns whether a document is held out: a function of its content alone."""
    return int.from_bytes(make_dataset.hash_of(row)[:8], "big") < HELD_OUT_SHARE * 2**64


def make_corpus(root: Path, answers: Sequence[str]) -> list[dict[str, str]]:
    """Returns all documents as rows with `text`, in an order of chance that is always the same."""
    pages = [[page] for page in reference_pages()]
    modules = [
        document
        for name, path in library_files(root)
        for document in entries(name, path.read_text(encoding="utf-8"))
    ]
    rows = [{"text": text} for text in without([*pages, *modules], answers)]
    return sorted(rows, key=make_dataset.hash_of)


def main() -> None:
    """Writes the documents to train on and those held out."""
    _, held_out = make_questions.split()
    answers = [row["output"] for row in held_out]
    rows = make_corpus(Path(sysconfig.get_paths()["stdlib"]), answers)
    make_dataset.write_rows(places.CORPUS, [row for row in rows if not is_held_out(row)])
    make_dataset.write_rows(places.CORPUS_HELD_OUT, [row for row in rows if is_held_out(row)])


if __name__ == "__main__":
    main()
