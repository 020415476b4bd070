"""The status of an `LLMTrainRun`: written by the operator alone, under 8 KB."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Time
from llmtrain_api.markers import Atomic, ListMap
from llmtrain_api.preparing import Task
from llmtrain_api.progress import Artifacts, Checkpointed, Resolved

_Message = Annotated[str, Field(max_length=2048)]
_Short = Annotated[str, Field(max_length=64)]

MAX_ATTEMPTS_KEPT = 10
MAX_CHECKPOINTS_KEPT = 5


class Phase(StrEnum):
    """A word for people; programs read the conditions, from which it is derived."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """The conditions of a run.

    There is no `Ready`: Flux would wait for it as long as a run trains.
    """

    ACCEPTED = "Accepted"
    WORKERS_READY = "WorkersReady"
    SUSPENDED = "Suspended"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SUCCEEDED = "Succeeded"
    FINISHED = "Finished"


class Condition(ApiModel):
    """One aspect of the object, as in Kubernetes' own objects."""

    type: Annotated[str, Field(max_length=64)]
    """Which aspect."""

    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""

    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """Why, in one word for programs."""

    message: _Message = ""
    """Why, in words, with what to do."""

    observed_generation: int | None = None
    """`metadata.generation` that this was said of."""

    last_transition_time: Time
    """When `status` changed last."""


class RunProgress(ApiModel):
    """How far training is. Numbers are rounded for people; curves are in storage."""

    step: int | None = None
    """Optimizer steps done."""

    total_steps: int | None = None
    """Optimizer steps in all."""

    summary: _Short | None = None
    """Both, such as `120/500`."""

    activity: _Short | None = None
    """What node 0 is doing: Preparing, Loading, Training, Evaluating, Saving, Finishing."""

    message: Annotated[str, Field(max_length=256)] | None = None
    """What it is doing, in words."""

    eta: _Short | None = None
    """Time to the last step at the pace of the newest steps, such as `3m20s`."""

    epoch: _Short | None = None
    """Passes over the rows, such as `1.25`."""

    loss: _Short | None = None
    """Training loss, such as `1.732`."""

    eval_loss: _Short | None = None
    """Loss on the held-out rows."""

    best_step: int | None = None
    """Optimizer steps after which the model was best by `evaluation.metricForBestModel`."""

    learning_rate: _Short | None = None
    """Learning rate, such as `1.8e-05`."""

    tokens_per_second: _Short | None = None
    """Trained tokens per second over all processes."""

    tokens_per_second_per_device: _Short | None = None
    """The same for each device."""

    mfu: _Short | None = None
    """Share of the devices' peak in bf16 that training uses, such as `41.2%`."""

    data_wait: _Short | None = None
    """Share of the time that training waits for rows, such as `0.4%`."""

    peak_memory_device: _Short | None = None
    """Most memory of a device that the first process has held, such as `61.2Gi`."""

    peak_memory_host: _Short | None = None
    """Most memory of the host that the first process has held, such as `2.1Gi`."""

    last_update_time: Time | None = None
    """When the operator last heard from the trainer."""


class Failure(ApiModel):
    """The first failing rank of an attempt."""

    exit_class: _Short
    """Why, one of the exit classes."""

    message: _Message
    """What happened and what to do."""

    node: int | None = None
    """Index of the pod."""

    node_name: Annotated[str, Field(max_length=253)] | None = None
    """Name of the Kubernetes node that it ran on."""

    pod: Annotated[str, Field(max_length=253)] | None = None
    """Name of the pod."""

    rank: int | None = None
    """Global rank of the process."""

    step: int | None = None
    """Last optimizer step that the node knew of."""

    exception: Annotated[str, Field(max_length=256)] | None = None
    """Type of the exception."""

    last_lines: Annotated[
        list[Annotated[str, Field(max_length=256)]], Field(max_length=8), Atomic()
    ] = []
    """Last lines of that process; kept for the newest failure only."""

    exit_code: int | None = None
    """Exit code of the container."""


class Attempt(ApiModel):
    """One gang of pods, one Job."""

    number: Annotated[int, Field(ge=1)]
    """Counts from 1 and is never used twice."""

    job: Annotated[str, Field(max_length=63)]
    """Name of its Job."""

    task: Task = "Train"
    """`Prepare` for one that only makes the tokens, as `prepare.job` says."""

    job_uid: _Short | None = None
    """UID of its Job, once the operator has seen it; an attempt without one is still to be made."""

    start_time: Time
    """When the operator decided to start it."""

    running_time: Time | None = None
    """When all of its pods were running."""

    end_time: Time | None = None
    """When it was over."""

    outcome: _Short | None = None
    """How it ended: an exit class, `Suspended` or `Prepared`; absent while it goes on."""

    counts: bool | None = None
    """Whether it used up one of `restartPolicy.maxRestarts`."""

    retry: int = 0
    """`spec.retry` when it started."""

    image: Annotated[str, Field(max_length=512)] | None = None
    """The image of its pods, by digest once one has pulled it."""

    failure: Failure | None = None
    """Why it failed."""


class RunStatus(ApiModel):
    """What is known of a run."""

    observed_generation: int = -1
    """`metadata.generation` that this status speaks of."""

    phase: Phase | None = None
    """A word for people; read the conditions in programs."""

    model: Annotated[str, Field(max_length=256)] | None = None
    """What is trained, for people: the model's URI, or what a new one is, such as
    `new llama 12.3M` or `new BPE 32000`."""

    conditions: Annotated[list[Condition], Field(max_length=16), ListMap(("type",))] = []
    """Accepted, WorkersReady, Suspended, Reconciling, Stalled, Succeeded, Finished."""

    progress: RunProgress | None = None
    """How far training is."""

    attempt: int | None = None
    """Number of the latest attempt."""

    restarts: int | None = None
    """Attempts that used up one of `restartPolicy.maxRestarts` since `retry` was last raised."""

    attempts: Annotated[
        list[Attempt], Field(max_length=MAX_ATTEMPTS_KEPT), ListMap(("number",))
    ] = []
    """The latest attempts, oldest first."""

    prepared: bool | None = None
    """Whether a Job of its own has made the tokens, where `prepare.job` asks for one."""

    latest_checkpoint: _Short | None = None
    """Name of the newest verified checkpoint."""

    checkpoints: Annotated[
        list[Checkpointed], Field(max_length=MAX_CHECKPOINTS_KEPT), ListMap(("name",))
    ] = []
    """The newest verified checkpoints, newest first."""

    artifacts: Artifacts | None = None
    """Where the results are."""

    resolved: Resolved | None = None
    """What was chosen where the spec left it open."""

    start_time: Time | None = None
    """When the first attempt started."""

    completion_time: Time | None = None
    """When the run finished, either way."""
