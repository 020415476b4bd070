"""The process of one tracker: `python -m llmtrain_trainer.tracking SERVICE WORKDIR`.

Started by node 0's launcher. What it prints to standard output goes into the run's log; what the
service's library prints stays in a file in the working folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llmtrain_trainer.tracking.delivery import Delivery, Tracker
from llmtrain_trainer.tracking.mlflow_run import MLflowRun
from llmtrain_trainer.tracking.wandb_run import WandbRun
from llmtrain_trainer.workdir import JOB, Job


def main(argv: Sequence[str] | None = None) -> int:
    """Delivers the training log of a working folder to one service; returns 0 when it has all."""
    parser = argparse.ArgumentParser(prog="python -m llmtrain_trainer.tracking")
    parser.add_argument("service", choices=["mlflow", "wandb"], help="whom to tell")
    parser.add_argument("workdir", type=Path, help="folder with job.json")
    arguments = parser.parse_args(argv)
    launcher, said = os.getppid(), sys.stdout
    sys.stdout = sys.stderr  # What a library prints is not for the run's log.

    def say(words: str) -> None:
        said.write(f"{words}\n")
        said.flush()

    Delivery(
        arguments.service,
        open_tracker(arguments.service, arguments.workdir),
        arguments.workdir,
        say,
        alive=lambda: os.getppid() == launcher,
    ).until_the_end()
    return 0


def open_tracker(service: str, folder: Path) -> Tracker:
    """Returns the tracker of a service, as the working folder's job asks for it."""
    job = Job.model_validate_json((folder / JOB).read_bytes())
    tracking = job.run.spec.tracking
    if service == "mlflow" and tracking is not None and tracking.mlflow is not None:
        return MLflowRun(tracking.mlflow, job.run)
    if service == "wandb" and tracking is not None and tracking.wandb is not None:
        return WandbRun(tracking.wandb, job.run, folder)
    raise ValueError(f"the job asks for no {service}")


if __name__ == "__main__":
    sys.exit(main())
