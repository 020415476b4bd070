"""Runs all benchmarks, one after the other: `make bench`."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("create_to_child", "apply_to_first_step", "sft_throughput", "tokenise")


def main() -> int:
    """Runs each benchmark in a process of its own; returns the first failure's exit status."""
    for name in NAMES:
        print(f"\n== {name} ==", flush=True)
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
