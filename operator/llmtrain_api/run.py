"""`LLMTrainRun`: one model, trained once."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import Atomic, Mutable, Rule
from llmtrain_api.training import (
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
from llmtrain_api.workers import Workers

MAX_NAME_LENGTH = 40
"""Children and host names are made of a run's name: `<run>-a<attempt>-<node>` must fit in 63."""

_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
NAME_RULE = Rule(
    f"size(self.metadata.name) <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^{_NAME}$')",
    lambda name: len(name) <= MAX_NAME_LENGTH and re.fullmatch(_NAME, name) is not None,
    f"use at most {MAX_NAME_LENGTH} lower-case letters, digits and '-', starting with a letter and"
    " ending with a letter or digit: Services and host names are made of it",
    at="metadata.name",
)


def _batch_values(spec: Any) -> tuple[int, ...]:
    batch, unit = spec.training.global_batch_size, spec.rows_per_micro_step
    parts = (spec.workers.nodes, spec.workers.processes_per_node, spec.training.micro_batch_size)
    return (batch, unit, *parts, (batch // unit + 1) * unit)


_PARTS = ("self.workers.nodes", "self.workers.processesPerNode", "self.training.microBatchSize")
_UNIT = " * ".join(_PARTS)
_BATCH = "self.training.globalBatchSize"
_BATCH_RULE = Rule(
    f"{_UNIT} < 1 || {_BATCH} % ({_UNIT}) == 0",  # 0 is refused where it stands.
    lambda spec: spec.training.global_batch_size % spec.rows_per_micro_step == 0,
    "must be a multiple of workers.nodes x workers.processesPerNode x training.microBatchSize",
    at="training.globalBatchSize",
    template="%d is not a multiple of %d = workers.nodes %d x workers.processesPerNode %d x"
    " training.microBatchSize %d: use %d or another multiple",
    values_cel=", ".join((_BATCH, _UNIT, *_PARTS, f"({_BATCH} / ({_UNIT}) + 1) * {_UNIT}")),
    values=_batch_values,
)
_MERGE_RULE = Rule(
    "self.tuning.method == 'LoRA' || !self.output.export.mergeAdapter",
    lambda spec: spec.tuning.method == "LoRA" or not spec.output.export.merge_adapter,
    "only for tuning.method LoRA: with Full there is no adapter, so remove it",
    at="output.export.mergeAdapter",
    reason="FieldValueForbidden",
)


def _repeated(datasets: list[Dataset]) -> list[str]:
    uris = [dataset.uri for dataset in datasets]
    return [uri for uri in uris if uris.count(uri) > 1]


_SOME_DATASET = Rule(
    "size(self) > 0",
    lambda datasets: len(datasets) > 0,
    "name at least one data set",
)
_DATASETS_DIFFER = Rule(
    "self.all(one, self.exists_one(other, other.uri == one.uri))",
    lambda datasets: not _repeated(datasets),
    "a uri stands more than once: remove all but one",
    template="%s stands more than once: remove all but one",
    values_cel="self.filter(one, !self.exists_one(other, other.uri == one.uri))[0].uri",
    values=lambda datasets: (_repeated(datasets)[0],),
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

    rules: ClassVar = (_BATCH_RULE, _MERGE_RULE)

    stage: Literal["SFT"]
    """The kind of training. `SFT`: supervised fine-tuning."""

    model: Model
    """The model that training starts from."""

    datasets: Annotated[
        list[Dataset], Field(max_length=64), Atomic(), _SOME_DATASET, _DATASETS_DIFFER
    ]
    """Sources of training rows, used one after the other, then shuffled; so their order counts."""

    evaluation: Evaluation | None = None
    """Loss on held-out rows. Default: none."""

    sft: SFT = SFT()
    """Settings of `stage: SFT`."""

    tuning: Tuning
    """Which weights are trained."""

    training: Training
    """How training runs."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints from which the run goes on."""

    output: Output
    """Where results go."""

    workers: Workers = Workers()
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

    @property
    def world_size(self) -> int:
        """Training processes over all nodes."""
        return self.workers.nodes * self.workers.processes_per_node

    @property
    def rows_per_micro_step(self) -> int:
        """Rows of one forward pass over all processes."""
        return self.world_size * self.training.micro_batch_size

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches per process and optimizer step."""
        return self.training.global_batch_size // self.rows_per_micro_step
