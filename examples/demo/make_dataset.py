"""Makes the demo's data set from what every machine has: the docstrings of Python's own library.

    python examples/demo/make_dataset.py

Each row is in the Alpaca format: a question about a function or a method, and the first sentences
of its documentation as the answer. The rows are a function of the Python version alone; which rows
are held out is decided by the hash of their content. Takes a second.
"""

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import folders

# Importing these does nothing that is seen from outside, on any operating system.
MODULES = """
    argparse ast base64 binascii bisect calendar cmath codecs collections colorsys
    configparser contextlib copy csv datetime decimal difflib dis email.message email.utils
    fileinput fnmatch fractions ftplib functools getopt gettext glob graphlib gzip hashlib
    heapq hmac html html.parser http.client http.cookies imaplib inspect io ipaddress
    itertools json keyword linecache locale logging mailbox math mimetypes operator optparse
    os.path pathlib pickle pickletools platform poplib pprint profile pstats queue quopri
    random re reprlib sched secrets selectors shelve shlex shutil smtplib socketserver
    statistics string stringprep struct subprocess symtable tarfile tempfile textwrap
    threading time timeit tokenize trace traceback tracemalloc types typing unicodedata
    unittest urllib.parse urllib.request urllib.robotparser uuid wave weakref
    xml.dom.minidom xml.etree.ElementTree xmlrpc.client zipfile zipimport zlib
"""
ASKED = "glob.glob"
"""The demo asks about this function before and after training, so it is never trained on."""
TRAIN_ROWS = 156
HELD_OUT_ROWS = 24
# Characters of an answer: short rows keep the demo's training short on two cores.
SHORTEST, LONGEST = 25, 130


def public_members(thing: ModuleType | type) -> Iterator[tuple[str, Any]]:
    """Yields names and values of the public attributes of `thing`, in the order of their names."""
    for name in sorted(vars(thing)):
        if not name.startswith("_"):
            yield name, vars(thing)[name]


def documented_functions(module_name: str) -> Iterator[tuple[str, str]]:
    """Yields dotted names and docstrings of the functions and methods that the module defines."""
    module = importlib.import_module(module_name)
    for name, value in public_members(module):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isroutine(value):
            yield f"{module_name}.{name}", inspect.getdoc(value) or ""
        elif inspect.isclass(value):
            for method_name, method in public_members(value):
                if inspect.isroutine(method) and not isinstance(method, type):
                    documentation = getattr(method, "__doc__", None) or ""
                    yield f"{module_name}.{name}.{method_name}", inspect.cleandoc(documentation)


def first_sentences(documentation: str) -> str:
    """Returns the first paragraph on one line, or nothing where that does not read as an answer."""
    text = " ".join(documentation.split("\n\n")[0].split())
    readable = re.fullmatch(r"[A-Z][a-z]+ [ -~]*[a-z)]\.", text)
    return text if readable and SHORTEST <= len(text) <= LONGEST else ""


def make_rows() -> list[dict[str, str]]:
    """Returns all usable rows, each answer once: the one asked about, then the rest by hash."""
    rows: dict[str, dict[str, str]] = {}
    for module_name in MODULES.split():
        for name, documentation in documented_functions(module_name):
            answer = first_sentences(documentation)
            if answer:
                rows.setdefault(answer, {"instruction": question(name), "output": answer})
    return sorted(
        rows.values(), key=lambda row: (row["instruction"] != question(ASKED), hash_of(row))
    )


def question(name: str) -> str:
    """Returns what is asked about a function."""
    return f"What does `{name}` do in Python?"


def hash_of(row: dict[str, Any]) -> bytes:
    """Returns a number that orders rows by chance, yet the same on each machine.

    It must have nothing to do with the hash by which llmtrain holds rows out of a run.
    """
    return hashlib.sha256(b"demo" + to_line(row).encode()).digest()


def to_chat(pair: tuple[dict[str, str], dict[str, str]]) -> dict[str, Any]:
    """Returns two rows as one chat of two turns, in the Messages format."""
    messages = []
    for row in pair:
        messages.append({"role": "user", "content": row["instruction"]})
        messages.append({"role": "assistant", "content": row["output"]})
    return {"messages": messages}


def to_line(row: dict[str, Any]) -> str:
    """Returns the row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(to_line(row) + "\n" for row in rows), encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"data: {path} ({len(rows)} rows, sha256 {digest[:12]})")


def main() -> None:
    """Writes the rows to train on, the rows held out, and the former as chats of two turns."""
    rows = make_rows()
    print(
        f"data: {len(rows)} functions of the standard library are documented in a sentence or two"
    )
    held_out, train = rows[:HELD_OUT_ROWS], rows[HELD_OUT_ROWS : HELD_OUT_ROWS + TRAIN_ROWS]
    write_rows(folders.HELD_OUT_ROWS, held_out)
    write_rows(folders.TRAIN_ROWS, train)
    write_rows(folders.CHATS, [to_chat(pair) for pair in zip(train[::2], train[1::2], strict=True)])


if __name__ == "__main__":
    main()
