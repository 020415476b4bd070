"""The command line of the launcher.

    python -m llmtrain_trainer [RUN_FILE] [--scratch DIR]

RUN_FILE is a `run.json`, or the manifest of an LLMTrainRun as it would be applied to a cluster.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.layout import RUN_FILE_FOLDER, RUN_FILE_NAME, SCRATCH_FOLDER, TERMINATION_LOG
from llmtrain_trainer.records import now
from llmtrain_trainer.runs import read_run
from llmtrain_trainer.stop import Stop
from llmtrain_trainer.verdict import Verdict, termination_message, to_json

_IN_A_POD = Path(SCRATCH_FOLDER)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one node's part of one attempt; returns the exit code of its class."""
    stop = Stop()
    stop.listen()  # First of all: the kernel drops signals that PID 1 has no handler for.
    options = _parse(argv)
    try:
        run = read_run(options.run_file)
    except (OSError, ValueError) as error:
        return _refuse(options, f"cannot use {options.run_file}: {error}")
    from llmtrain_trainer.launcher import launch  # Late, since the line above is the first duty.
    from llmtrain_trainer.node import Node

    node = Node(
        run,
        options.node,
        options.scratch,
        stop,
        termination_log=options.termination_log,
        worker_module=options.worker_module,
    )
    return EXIT_POLICIES[launch(node)].code


def _refuse(options: argparse.Namespace, problem: str) -> int:
    """Says why the run file cannot be used; returns the exit code."""
    sys.stderr.write(f"llmtrain-trainer: {problem}\n")
    verdict = Verdict(ExitClass.CONFIG, problem)
    message = termination_message(
        verdict, node=options.node, step=None, time=now(), latest_checkpoint=""
    )
    if options.termination_log is not None:
        options.termination_log.write_text(to_json(message), encoding="utf-8")
    return EXIT_POLICIES[ExitClass.CONFIG].code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    in_a_pod = _IN_A_POD.is_dir()
    parser = argparse.ArgumentParser(prog="llmtrain-trainer", description="Train one model.")
    parser.add_argument(
        "run_file",
        type=Path,
        nargs="?",
        default=Path(RUN_FILE_FOLDER) / RUN_FILE_NAME,
        help="run.json, or the manifest of an LLMTrainRun",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=_IN_A_POD if in_a_pod else Path.home() / ".cache" / "llmtrain",
        help="folder for inputs and checkpoints on their way (default: %(default)s)",
    )
    parser.add_argument(
        "--node",
        type=int,
        default=int(os.environ.get("JOB_COMPLETION_INDEX", "0")),
        help="index of this node, from 0 (default: JOB_COMPLETION_INDEX, or 0)",
    )
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=Path(TERMINATION_LOG) if Path(TERMINATION_LOG).exists() else None,
        help="where to leave the verdict as JSON (default: where the kubelet reads it)",
    )
    parser.add_argument(
        "--worker-module",
        default="llmtrain_trainer.worker",
        help="module that each training process runs (default: %(default)s)",
    )
    return parser.parse_args(argv)


def run() -> NoReturn:
    """Runs the command line and exits; threads that wait for storage do not hold a pod back."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
