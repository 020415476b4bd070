"""Where things lie in storage under `output.uri`, and where they lie in a trainer pod."""

from __future__ import annotations

from pathlib import PurePosixPath

# In storage, relative to `output.uri`.
OWNER = "owner.json"
RUN = "run.json"
INPUTS = "inputs.json"
PROVENANCE = "provenance.json"
MODEL = "model"
ADAPTER = "adapter"
TENSORBOARD = "tensorboard"
ALL_RESULTS = "results/all_results.json"
LOSS_PLOT = "plots/training_loss.png"
CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
"""Prepared tokens, unless `prepare.cacheUri` names another place."""
MANIFEST = "manifest.json"
FINAL_MANIFEST = f"{MODEL}/{MANIFEST}"
"""Written last of all: a run is finished if and only if this object is there."""


def restart_record(attempt: int, restart: int) -> str:
    """Returns the key of the record that starts one restart of an attempt."""
    return f"attempts/{attempt}/restarts/{restart}.json"


def log_segment(attempt: int, node: int, segment: int) -> str:
    """Returns the key of one piece of a node's log; pieces count from 0."""
    return f"attempts/{attempt}/logs/node-{node}.{segment:05d}.log"


def trainer_log_segment(attempt: int, restart: int, segment: int) -> str:
    """Returns the key of one piece of the training log, one JSON object a line."""
    return f"metrics/trainer_log.a{attempt}r{restart}.{segment:05d}.jsonl"


def tensorboard_file(attempt: int, restart: int, number: int) -> str:
    """Returns the key of an event file of TensorBoard, which reads them in the order of names."""
    return f"{TENSORBOARD}/events.out.tfevents.a{attempt:05d}r{restart:03d}.{number:05d}"


def checkpoint_name(step: int, attempt: int, restart: int) -> str:
    """Returns the name of a checkpoint, such as `120-a1r0`."""
    return f"{step}-a{attempt}r{restart}"


# In a trainer pod.
LAUNCHER = "llmtrain-trainer"
"""The program that must be on the PATH of the image of a `stage: Custom`; it runs as PID 1."""
RUN_FILE_FOLDER = PurePosixPath("/etc/llmtrain/run")
RUN_FILE_NAME = "run.json"
"""The ConfigMap of the attempt is mounted here."""
CA_FOLDER = PurePosixPath("/etc/llmtrain/ca")
CA_FILE_NAME = "ca.crt"
"""The certificate authority of the operator's progress endpoint; re-read when a handshake fails."""
SECRET_FOLDER = PurePosixPath("/etc/llmtrain/storage")
"""One file per key of the storage Secret; re-read, so that a rotated key reaches running pods."""
TOKEN_FILE = PurePosixPath("/etc/llmtrain/token/token")
"""Projected service account token with the audience below; re-read on each post."""
TOKEN_AUDIENCE = "llmtrain.dev/progress"
SCRATCH_FOLDER = PurePosixPath("/scratch")
SHARED_MEMORY_FOLDER = PurePosixPath("/dev/shm")
TERMINATION_LOG = PurePosixPath("/dev/termination-log")
RENDEZVOUS_PORT = 29500
"""torchrun's default port, as in `torchrun --help`; restart r uses port + r."""

# Labels of children.
LABEL_RUN = "llmtrain.dev/run"
LABEL_RUN_UID = "llmtrain.dev/run-uid"
LABEL_ATTEMPT = "llmtrain.dev/attempt"

# On the runs of a schedule.
LABEL_SCHEDULE = "llmtrain.dev/schedule"
ANNOTATION_SCHEDULED_TIME = "llmtrain.dev/scheduled-time"
"""The time that the run was made for, RFC 3339."""
