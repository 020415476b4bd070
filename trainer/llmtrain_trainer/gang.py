"""Runs torchrun and keeps what it knows of the processes that failed.

torchrun's exit code is 1 whatever happened, and it only prints the exit codes and signals of its
workers. This module is the process around it; it imports torch, so the launcher does not.

    python -m llmtrain_trainer.gang FAILURES_FILE TORCHRUN_ARGUMENT...
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs torchrun; returns its exit code."""
    die_with_the_launcher()
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(sys.argv[2:])
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
        ends = [
            {"rank": rank, "exit_code": failure.exitcode, "seconds": failure.timestamp}
            for rank, failure in failures
        ]
        Path(sys.argv[1]).write_text(json.dumps(ends), encoding="utf-8")
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def die_with_the_launcher() -> None:
    """Asks Linux for SIGTERM when the launcher dies; torchrun then ends its processes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # As in worker.py: what is torn down now must not change how it ended.
