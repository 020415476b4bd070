"""One training process: `python -m llmtrain_trainer.worker WORKDIR`, started by torchrun.

Reads `job.json` in the working folder and leaves everything it has to say there (workdir.py).
Exits 0 when all is done, with the code of `Preempted` after it obeyed a `stop` file, and with the
code of its failure's class otherwise; torchrun does not pass codes on, so the launcher reads files.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_trainer import workdir
from llmtrain_trainer.failures import rank_of_process, report
from llmtrain_trainer.workdir import Activity, Job, wait_for_job, write_atomically

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
    # Trackers are told by processes of their own (tracking/).
    "DISABLE_MLFLOW_INTEGRATION": "TRUE",
    "TOKENIZERS_PARALLELISM": "true",
    # transformers and datasets draw progress bars and print notes of their own.
    "TRANSFORMERS_VERBOSITY": "warning",
}
"""What the libraries are told before they are imported, unless the user set something else."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one training process and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m llmtrain_trainer.worker", description=__doc__)
    parser.add_argument("workdir", type=Path, help="folder with job.json")
    folder = parser.parse_args(argv).workdir
    rank = rank_of_process()
    _set_up_logging(rank)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        if rank == 0:
            loading = Activity(activity="Loading", message="importing the training stack")
            write_atomically(folder / workdir.ACTIVITY, loading.model_dump_json())
        # Late: it takes seconds, in which the launcher fetches the inputs.
        importlib.import_module("llmtrain_trainer.stages.flow")
        outcome = _run_stage(wait_for_job(folder), folder)
    except Exception as error:
        traceback.print_exc()
        outcome = report(error, folder, rank, _last_step())
    sys.stdout.flush()
    sys.stderr.flush()
    return EXIT_POLICIES[outcome].code


def hide_wandb() -> None:
    """Keeps TRL from importing Weights & Biases, which it does wherever the package is found.

    It takes a second and 60 MB of each process; trackers are told by processes of their own.
    """
    sys.modules["wandb"] = None  # type: ignore[assignment]  # What Python calls "not to be found".


def _run_stage(job: Job, folder: Path) -> ExitClass:
    """Runs the job's stage; what only that stage needs is imported late."""
    match job.run.spec.stage:
        case "DPO":
            from llmtrain_trainer.stages import dpo

            return dpo.run(job, folder)
        case "Evaluate":
            from llmtrain_trainer.stages import evaluate

            return evaluate.run(job, folder)
        case "KTO":
            from llmtrain_trainer.stages import kto

            return kto.run(job, folder)
        case "Pretrain":
            from llmtrain_trainer.stages import pretrain

            return pretrain.run(job, folder)
        case "Reward":
            from llmtrain_trainer.stages import reward

            return reward.run(job, folder)
        case "SFT":
            from llmtrain_trainer.stages import sft

            return sft.run(job, folder)
        case "Tokenizer":
            from llmtrain_trainer.stages import tokenizer

            return tokenizer.run(job, folder)
        case "Custom":
            raise ValueError("stage Custom runs a command, not this module")


def _last_step() -> int | None:
    """Returns the step that training has come to, without importing what was never imported."""
    flow = sys.modules.get("llmtrain_trainer.stages.flow")
    return flow.current_step() if flow is not None else None


def _set_up_logging(rank: int) -> None:
    """Rank 0 tells what happens; the others speak up only where something is wrong."""
    logging.basicConfig(
        level=logging.WARNING,
        format=f"%(asctime)s %(levelname)s rank {rank}: %(message)s",
        stream=sys.stdout,
    )
    logging.getLogger("llmtrain_trainer").setLevel(logging.INFO)


if __name__ == "__main__":
    hide_wandb()
    code = main()
    logging.shutdown()
    # The libraries' destructors have no say any more: with peers gone they can hang, and one that
    # aborts would turn a finished run into a failed one.
    os._exit(code)
