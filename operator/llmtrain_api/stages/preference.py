"""The stages that learn from preferences: `DPO`, `KTO` and `Reward`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Uri
from llmtrain_api.markers import Atomic, Rule

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]

_SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
"""The losses that read `labelSmoothing`."""


class ReferenceModel(ApiModel):
    """The model that the trained one is held against."""

    uri: Uri
    """Folder of a Hugging Face model with the same tokenizer as `model`."""


class DPO(ApiModel):
    """Direct preference optimisation, `stage: DPO`."""

    rules: ClassVar = (
        Rule(
            "!has(self.lossWeights) || size(self.lossWeights) == size(self.lossType)",
            lambda dpo: dpo.loss_weights is None or len(dpo.loss_weights) == len(dpo.loss_type),
            "use one weight for each entry of lossType",
            at="lossWeights",
        ),
        Rule(
            "self.labelSmoothing > 0.0 || !self.lossType.exists(t, t == 'exo_pair')",
            lambda dpo: dpo.label_smoothing > 0 or "exo_pair" not in dpo.loss_type,
            "use a value above 0 with the loss exo_pair, such as 1.0e-3",
            at="labelSmoothing",
        ),
        Rule(
            f"self.labelSmoothing == 0.0 || self.lossType.exists(t, t in {list(_SMOOTHED)})",
            lambda dpo: dpo.label_smoothing == 0 or bool({*dpo.loss_type} & {*_SMOOTHED}),
            f"only {', '.join(_SMOOTHED)} read it: remove it, or add one of them to lossType",
            at="labelSmoothing",
        ),
    )

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """How far the model may move from the reference: the higher, the less. Default: 0.1, as in
    TRL."""

    loss_type: Annotated[list[LossType], Field(min_length=1, max_length=8), Atomic()] = ["sigmoid"]
    """Losses by TRL's names; several are added up with `lossWeights`. Default: `sigmoid`, the loss
    of the DPO paper."""

    loss_weights: (
        Annotated[list[Annotated[float, Field(ge=0, le=1000)]], Field(max_length=8), Atomic()]
        | None
    ) = None
    """Weight of each entry of `lossType`. Default: 1 for each, as in TRL."""

    label_smoothing: Annotated[
        float,
        Field(ge=0),
        Rule("self < 0.5", lambda value: value < 0.5, "use a share below 0.5"),
    ] = 0.0
    """Share of pairs that are taken to be labelled the wrong way round, for the losses `exo_pair`
    (where it must be above 0), `robust`, `aot` and `aot_unpaired`. Default: 0, as in TRL."""

    reference_model: ReferenceModel | None = None
    """The reference. Default: the model as it was before training; with LoRA that is the base
    without its adapter, which needs no second copy in memory."""

    precompute_ref_log_probs: bool = False
    """Compute the reference's log-probabilities of all rows once, before training, so that it needs
    no memory meanwhile; done anew after a restart."""

    disable_dropout: bool = True
    """Leave the dropout of the model and of the adapter out, since the loss compares two passes.
    Default: true, as in TRL."""


class KTO(ApiModel):
    """Kahneman-Tversky optimisation, `stage: KTO`: from single answers marked good or bad."""

    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """Loss by TRL's name. `kto` needs a `training.microBatchSize` of at least 2: it holds each
    answer against the others of its batch. Default: `kto`."""

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """How far the model may move from the reference: the higher, the less. Default: 0.1, as in
    TRL."""

    desirable_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of the loss of good answers. Default: 1, as in TRL."""

    undesirable_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of the loss of bad answers. Default: 1, as in TRL."""

    reference_model: ReferenceModel | None = None
    """The reference. Default: the model as it was before training; with LoRA that is the base
    without its adapter, which needs no second copy in memory."""

    precompute_ref_log_probs: bool = False
    """Compute the reference's log-probabilities of all rows once, before training, so that it needs
    no memory meanwhile; done anew after a restart."""

    disable_dropout: bool = True
    """Leave the dropout of the model and of the adapter out, since the loss compares two passes.
    Default: true, as in TRL."""


class Reward(ApiModel):
    """A reward model, `stage: Reward`: one number for an answer."""

    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Weight of a term that keeps the mean reward at 0; its paper uses 0.01. Default: none, as in
    TRL."""

    disable_dropout: bool = True
    """Leave the dropout of the model and of the adapter out. Default: true, as in TRL."""
