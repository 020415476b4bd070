"""The folder in which the launcher and its training processes meet, and the files they exchange.

    launcher writes                      training processes write
    job.json  what to do                 trainer_log.jsonl        rank 0, a line per logging step
    stop      save a checkpoint and end  activity.json            rank 0, what it is doing
    tracking-end  how training ended,    resolved.json            rank 0, what was chosen
              for the trackers           tokens/  account.json last
    tokens/  of the cache
                                         out/checkpoint-<step>/   all; .saved-rank-<r> last
                                         trained                  all, after their first step
                                         failure-rank-<r>.json    a rank that fails, before it exits
                                         preempted                rank 0, after `stop` was obeyed
                                         final/                   rank 0, results; .done last

The command of `stage: Custom` knows none of these: it reads `data` and writes `output` beside the
working folder, and what it writes is taken to `out` and `final` (custom.py).

Files are the whole interface: no torch in the launcher, no storage in them. A
file that the other side reads while it is written is replaced as a whole (`write_atomically`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile

JOB = "job.json"
STOP = "stop"
TRAINER_LOG = "trainer_log.jsonl"
ACTIVITY = "activity.json"
RESOLVED = "resolved.json"
TRAINED = "trained"
PREEMPTED = "preempted"
CHECKPOINTS = "out"
POSITION = "position.json"
"""In a checkpoint: how many rows (packed sequences) have been trained, as `samples`."""
FINAL = "final"
TOKENS = "tokens"
ACCOUNT = "account.json"
DONE = ".done"
_POLL_SECONDS = 0.05


class InputFile(ApiModel):
    """One downloaded object."""

    uri: str
    path: str
    size: int
    etag: str
    sha256: str


class Job(ApiModel):
    """What the launcher tells the training processes of its node."""

    run: RunFile
    """The run file; its `attempt` is set."""

    restart: int
    """Number of the restart within the attempt, from 0."""

    node: int
    """Index of this node, from 0."""

    model_path: str = ""
    """Folder with the downloaded model, or with the tokenizer of a new one; empty for neither."""

    adapter_path: str = ""
    """Folder with the downloaded adapter; empty for none."""

    reference_path: str = ""
    """Folder with the downloaded reference model; empty for none."""

    model_files: list[InputFile] = Field(default=[])
    """The files in both folders."""

    dataset_files: list[InputFile]
    """The downloaded data, in the order of `spec.datasets`; of a folder, each object in it."""

    tokenizer_files: tuple[InputFile, ...] = ()
    """What of the model's folder the tokens follow from."""

    makes_tokens: bool = True
    """Whether this node turns rows into tokens; else the launcher brings those of node 0."""

    resume_from: str | None = None
    """Folder of a verified checkpoint, or none to start from step 0."""

    best_from: str | None = None
    """Folder of the best checkpoint so far, where it is another one and wanted at the end."""

    @property
    def tokenizer_path(self) -> str:
        """Folder with the tokenizer: the adapter's where it brings one, else the model's."""
        brings_one = self.adapter_path and (Path(self.adapter_path) / "tokenizer.json").is_file()
        return self.adapter_path if brings_one else self.model_path


ActivityName = Literal["Preparing", "Loading", "Training", "Evaluating", "Saving", "Finishing"]


class Activity(ApiModel):
    """What rank 0 is doing."""

    activity: ActivityName
    message: str = ""


class RankFailure(ApiModel):
    """How one training process failed."""

    exit_class: ExitClass
    message: str
    exception: str = ""
    rank: int
    step: int | None = None
    time: str


def failure_file(rank: int) -> str:
    """Returns the name of the file in which `rank` says how it failed."""
    return f"failure-rank-{rank}.json"


def checkpoint_folder(step: int) -> str:
    """Returns a checkpoint's path in the folder, as transformers names it."""
    return f"{CHECKPOINTS}/checkpoint-{step}"


def data_folder(workdir: Path) -> Path:
    """Returns the folder in which a command finds its data; the same in each attempt."""
    return workdir.parent / "data"


def output_folder(workdir: Path) -> Path:
    """Returns the folder into which a command writes; the same in each attempt."""
    return workdir.parent / "output"


def saved_marker(rank: int) -> str:
    """Returns the name of the file by which `rank` says that its part of a checkpoint is there."""
    return f".saved-rank-{rank}"


def wait_for_job(workdir: Path) -> Job:
    """Returns the job; the launcher writes it when the inputs, fetched meanwhile, are all there."""
    while not (workdir / JOB).exists():
        time.sleep(_POLL_SECONDS)
    return Job.model_validate_json((workdir / JOB).read_bytes())


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` as a whole, so that a reader sees the old or the new text."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def say(folder: Path, activity: ActivityName, message: str = "") -> None:
    """Tells the launcher what this process is doing."""
    text = Activity(activity=activity, message=message).model_dump_json()
    write_atomically(folder / ACTIVITY, text)
