"""`LLMTrainRun`: one model, trained once."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import CEL, ListMap, Mutable
from llmtrain_api.training import (
    LORA_ONLY_WITH_LORA,
    ONE_OF_EPOCHS_AND_STEPS,
    SFT,
    Checkpoint,
    Dataset,
    Evaluation,
    Model,
    Output,
    Storage,
    Training,
    Tuning,
)
from llmtrain_api.workers import RESERVED_ENV, Workers

MAX_NAME_LENGTH = 40
"""Children and host names are made of a run's name: `<run>-a<attempt>-<node>` must fit in 63."""

NAME_RULE = CEL(
    f"size(self.metadata.name) <= {MAX_NAME_LENGTH} &&"
    " self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    f"metadata.name: use at most {MAX_NAME_LENGTH} lower-case letters, digits and '-', starting"
    " with a letter and ending with a letter or digit: Services and host names are made of it",
)
BATCH_RULE = CEL(
    "self.training.globalBatchSize % (self.workers.nodes * self.workers.processesPerNode *"
    " self.training.microBatchSize) == 0",
    "training.globalBatchSize must be a multiple of workers.nodes x workers.processesPerNode x"
    " training.microBatchSize, so that every process takes the same number of micro-batches",
)


class RestartPolicy(ApiModel):
    """What happens after a failure that a new attempt can heal."""

    max_restarts: Annotated[int, Field(ge=0, le=100), Mutable()] = 3
    """New attempts after failures; preemptions do not count. Default: 3."""


class RunSpec(ApiModel):
    """What to train, on what, and where to.

    Frozen once the run has started, except `suspend`, `retry`, `ttlSecondsAfterFinished` and
    `restartPolicy.maxRestarts`.
    """

    stage: Literal["SFT"]
    """The kind of training. `SFT`: supervised fine-tuning."""

    model: Model
    """The model that training starts from."""

    datasets: Annotated[list[Dataset], Field(min_length=1, max_length=64), ListMap(("uri",))]
    """Sources of training rows, used one after the other, then shuffled."""

    evaluation: Evaluation | None = None
    """Loss on held-out rows. Default: none."""

    sft: SFT = SFT()
    """Settings of `stage: SFT`."""

    tuning: Annotated[Tuning, LORA_ONLY_WITH_LORA]
    """Which weights are trained."""

    training: Annotated[Training, ONE_OF_EPOCHS_AND_STEPS]
    """How training runs."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints from which the run goes on."""

    output: Output
    """Where results go."""

    workers: Annotated[Workers, RESERVED_ENV] = Workers()
    """The pods that train."""

    storage: Storage = Storage()
    """How object storage is reached."""

    restart_policy: RestartPolicy = RestartPolicy()
    """What happens after a failure."""

    start_timeout_seconds: Annotated[int, Field(ge=10, le=31_536_000)] = 86_400
    """Seconds in which all pods of an attempt must be running; then the run has failed. What may
    heal until then (no room, a missing Secret, an image that cannot be pulled) is reported in the
    condition `WorkersReady`. Default: a day."""

    suspend: Annotated[bool, Mutable()] = False
    """True stops the pods after a checkpoint, or keeps a run from starting; false goes on from
    there."""

    retry: Annotated[int, Field(ge=0, le=1_000_000), Mutable()] = 0
    """Raise it to try a failed run again, from its last checkpoint and with new restarts."""

    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000), Mutable()] | None = None
    """Seconds after which the Jobs of a finished run are deleted; the run itself stays. Default:
    never."""

    @model_validator(mode="after")
    def _hold_the_rules_of_the_schema(self) -> Self:
        """Holds on the command line what CEL holds in the cluster."""
        if (self.training.epochs is None) == (self.training.max_steps is None):
            raise ValueError("training: " + ONE_OF_EPOCHS_AND_STEPS.message)
        if self.tuning.lora is not None and self.tuning.method != "LoRA":
            raise ValueError("tuning: " + LORA_ONLY_WITH_LORA.message)
        if self.training.global_batch_size % self._rows_per_micro_step:
            raise ValueError(BATCH_RULE.message)
        return self

    @property
    def world_size(self) -> int:
        """Training processes over all nodes."""
        return self.workers.nodes * self.workers.processes_per_node

    @property
    def _rows_per_micro_step(self) -> int:
        return self.world_size * self.training.micro_batch_size

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches per process and optimizer step."""
        return self.training.global_batch_size // self._rows_per_micro_step
