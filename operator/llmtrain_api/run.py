"""`LLMTrainRun`: one model, trained or measured once."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.datasets import Dataset, Evaluation
from llmtrain_api.markers import Atomic, Mutable, Rule
from llmtrain_api.preparing import Prepare
from llmtrain_api.references import MAX_NAME_LENGTH as MAX_NAME_LENGTH
from llmtrain_api.references import (
    SOURCE_FIELDS,
    FromRun,
    Parent,
    SourceField,
)
from llmtrain_api.runrules import RULES
from llmtrain_api.stages.custom import Custom
from llmtrain_api.stages.evaluate import Evaluate
from llmtrain_api.stages.preference import DPO, KTO, Reward
from llmtrain_api.stages.pretrain import Architecture, Pretrain, TokenizerSource
from llmtrain_api.stages.sft import SFT
from llmtrain_api.stages.tokenizer import TokenizerTraining
from llmtrain_api.tracking import Tracking
from llmtrain_api.training import Checkpoint, Model, Output, Storage, Training, Tuning
from llmtrain_api.workers import Workers

_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
NAME_RULE = Rule(
    f"size(self.metadata.name) <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^{_NAME}$')",
    lambda name: len(name) <= MAX_NAME_LENGTH and re.fullmatch(_NAME, name) is not None,
    f"use at most {MAX_NAME_LENGTH} lower-case letters, digits and '-', starting with a letter and"
    " ending with a letter or digit: Services and host names are made of it",
    at="metadata.name",
)


def _names_another(field: SourceField, run: Any) -> bool:
    named = run.spec.references.get(field)
    return named is None or named.name != run.name


NOT_FROM_ITSELF = tuple(
    Rule(
        f"!has(self.spec.{field}) || !has(self.spec.{field}.fromRun)"
        f" || self.spec.{field}.fromRun.name != self.metadata.name",
        partial(_names_another, field),
        "is this run itself, which would wait for ever: use the name of another one",
        at=f"spec.{field}.fromRun.name",
    )
    for field in SOURCE_FIELDS
)
"""Rules about a run as a whole, its name and its spec."""


def _repeated(datasets: list[Dataset]) -> list[str]:
    uris = [dataset.uri for dataset in datasets]
    return [uri for uri in uris if uris.count(uri) > 1]


_DATASETS_DIFFER = Rule(
    "self.all(one, self.exists_one(other, other.uri == one.uri))",
    lambda datasets: not _repeated(datasets),
    "a uri stands more than once: remove all but one",
    template="%s stands more than once: remove all but one",
    values_cel="self.filter(one, !self.exists_one(other, other.uri == one.uri))[0].uri",
    values=lambda datasets: (_repeated(datasets)[0],),
)


Stage = Literal["Tokenizer", "Pretrain", "SFT", "DPO", "KTO", "Reward", "Custom", "Evaluate"]


class RestartPolicy(ApiModel):
    """What happens after a failure that a new attempt can heal."""

    max_restarts: Annotated[int, Field(ge=0, le=100), Mutable()] = 3
    """New attempts after failures; preemptions do not count. Default: 3."""


class RunSpec(ApiModel):
    """What to train, on what, and where to.

    Frozen once the run has started, except `suspend`, `retry`, `ttlSecondsAfterFinished` and
    `restartPolicy.maxRestarts`.
    """

    rules: ClassVar = RULES

    stage: Stage
    """The kind of training. `Tokenizer`: a new tokenizer. `Pretrain`: running text, from nothing or
    from a model. `SFT`: supervised fine-tuning. `DPO`, `KTO`: alignment with preferences. `Reward`:
    a reward model. `Custom`: a command of one's own. `Evaluate`: no training; loss, and answers
    held against those wanted."""

    model: Model | None = None
    """The model that training starts from. Required, except for `Tokenizer`, for `Pretrain` with
    an `architecture`, and for `Custom`."""

    architecture: Architecture | None = None
    """A new model with random weights, for `Pretrain`."""

    tokenizer: TokenizerSource | None = None
    """The tokenizer of a new model; required with `architecture`."""

    datasets: Annotated[list[Dataset], Field(max_length=64), Atomic(), _DATASETS_DIFFER] = []
    """Sources of training rows, used one after the other, then shuffled; so their order counts.
    Required, except for `Custom`."""

    evaluation: Evaluation | None = None
    """Loss on held-out rows. Default: none."""

    tokenizer_training: TokenizerTraining | None = None
    """Settings of `stage: Tokenizer`, and required there."""

    pretrain: Pretrain | None = None
    """Settings of `stage: Pretrain`."""

    sft: SFT | None = None
    """Settings of `stage: SFT`."""

    dpo: DPO | None = None
    """Settings of `stage: DPO`."""

    kto: KTO | None = None
    """Settings of `stage: KTO`."""

    reward: Reward | None = None
    """Settings of `stage: Reward`."""

    custom: Custom | None = None
    """Settings of `stage: Custom`, and required there."""

    evaluate: Evaluate | None = None
    """Settings of `stage: Evaluate`."""

    prepare: Prepare | None = None
    """How rows become tokens. Default: on the first node, kept under `output.uri`."""

    tuning: Tuning | None = None
    """Which weights are trained. Required wherever training starts from a `model`; a new model is
    trained as a whole."""

    training: Training | None = None
    """How training runs. Required, except for `Tokenizer`, `Custom` and `Evaluate`, which take
    none."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints from which the run goes on."""

    output: Output
    """Where results go."""

    workers: Workers = Workers()
    """The pods that train."""

    storage: Storage = Storage()
    """How object storage is reached."""

    tracking: Tracking | None = None
    """Services that are told of the curves beside storage. Default: none."""

    restart_policy: RestartPolicy = RestartPolicy()
    """What happens after a failure."""

    start_timeout_seconds: Annotated[int, Field(ge=10, le=31_536_000)] = 86_400
    """Seconds in which all pods of an attempt must be running; then the run has failed. What may
    heal until then (no room, a missing Secret, an image that cannot be pulled) is reported in the
    condition `WorkersReady`. A run that `fromRun` names is waited for as long as it goes on; but no
    longer than this while it has failed or does not exist. Default: a day."""

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
        return self.world_size * self.require_training().micro_batch_size

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches per process and optimizer step."""
        return self.require_training().global_batch_size // self.rows_per_micro_step

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run; none where epochs say when it ends.

        `training.maxTokens` is rounded up to whole steps.
        """
        training = self.require_training()
        if training.max_tokens is None:
            return training.max_steps
        return math.ceil(training.max_tokens / (training.global_batch_size * training.max_length))

    @property
    def method(self) -> Literal["LoRA", "Full"]:
        """Which weights are trained; a new model is trained as a whole."""
        return self.tuning.method if self.tuning is not None else "Full"

    @property
    def source_uri(self) -> str:
        """Where the tokenizer, and the model unless it is new, are read from; empty for neither."""
        source = self.model or self.tokenizer
        return (source.uri or "") if source is not None else ""

    @property
    def references(self) -> dict[SourceField, FromRun]:
        """The runs that this one starts from, by the field that names them; none once resolved."""
        found: dict[SourceField, FromRun] = {}
        for field in SOURCE_FIELDS:
            source: Model | TokenizerSource | None = getattr(self, field)
            if source is not None and source.from_run is not None:
                found[field] = source.from_run
        return found

    def resolved(self, parents: Sequence[Parent]) -> RunSpec:
        """Returns the spec with the folders of `parents` in the place of `fromRun`."""
        sources: dict[str, Any] = {}
        for parent in parents:
            source: Model | TokenizerSource = getattr(self, parent.field)
            changes = {"uri": parent.uri, "from_run": None}
            sources[parent.field] = source.model_copy(update=changes)
        return self.model_copy(update=sources)

    @property
    def preparing(self) -> Prepare:
        """`prepare`, or its defaults."""
        return self.prepare or Prepare()

    @property
    def max_length(self) -> int:
        """Longest row in tokens."""
        if self.stage == "Evaluate":
            return self.require_evaluate().max_length
        return self.require_training().max_length

    @property
    def chat_template(self) -> str | None:
        """The chat template that the spec chooses, by name or in Jinja; none for the model's."""
        block = self.evaluate if self.stage == "Evaluate" else self.sft
        return block.chat_template if block is not None else None

    def require_evaluate(self) -> Evaluate:
        """Returns `evaluate`, with its defaults where the spec of such a stage has none."""
        return self.evaluate or Evaluate()

    def require_training(self) -> Training:
        """Returns `training`, which a rule holds every stage that trains by itself to."""
        if self.training is None:
            raise ValueError(f"stage {self.stage} has no training")
        return self.training
