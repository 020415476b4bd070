"""The rules about more than one field of a run's spec, in CEL and Python alike."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmtrain_api.customrules import CUSTOM_RULES
from llmtrain_api.evaluaterules import EVALUATE_RULES
from llmtrain_api.markers import Rule
from llmtrain_api.orderrules import ORDER_RULES
from llmtrain_api.stagerules import not_for

FORMATS = {
    "Tokenizer": ("Text",),
    "Pretrain": ("Text",),
    "SFT": ("Alpaca", "ShareGPT", "Messages", "PromptCompletion"),
    "DPO": ("Preference",),
    "KTO": ("KTO",),
    "Reward": ("Preference",),
    "Custom": ("Any",),
    "Evaluate": ("Alpaca", "ShareGPT", "Messages", "PromptCompletion", "Text"),
}
"""The formats of rows that a stage reads."""

_BLOCKS = {
    "Tokenizer": "tokenizer_training",
    "Pretrain": "pretrain",
    "SFT": "sft",
    "DPO": "dpo",
    "KTO": "kto",
    "Reward": "reward",
    "Custom": "custom",
    "Evaluate": "evaluate",
}
"""The block of settings that belongs to a stage."""


_FROM_NOTHING = ("Tokenizer", "Custom")
"""The stages that need no model."""

_WITHOUT_TRAINING = ("Tokenizer", "Custom", "Evaluate")
"""The stages that take neither `training` nor `tuning`."""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _only_for(stage: str, block: str) -> Rule:
    return Rule(
        f"!has(self.{_camel(block)}) || self.stage == '{stage}'",
        lambda spec: getattr(spec, block) is None or spec.stage == stage,
        f"only for stage {stage}: remove it, or correct the stage",
        at=_camel(block),
        reason="FieldValueForbidden",
    )


def _no_evaluation_of_a_tokenizer(field: str) -> Rule:
    name = _camel(field)
    return Rule(
        f"!has(self.evaluation) || !has(self.evaluation.{name}) || self.stage != 'Tokenizer'",
        lambda spec: (
            spec.evaluation is None
            or getattr(spec.evaluation, field) is None
            or spec.stage != "Tokenizer"
        ),
        "stage Tokenizer is measured once, at the end, without a model: remove it",
        at=f"evaluation.{name}",
        reason="FieldValueForbidden",
    )


def _reads(stage: str, formats: tuple[str, ...], spec: Any) -> bool:
    return spec.stage != stage or all(dataset.format in formats for dataset in spec.datasets)


_FORMAT_RULES = tuple(
    Rule(
        f"self.stage != '{stage}' || !has(self.datasets)"
        f" || self.datasets.all(d, d.format in {list(formats)})",
        partial(_reads, stage, formats),
        f"stage {stage} reads the {'format' if len(formats) == 1 else 'formats'}"
        f" {', '.join(formats)}: correct the format of the data set, or the stage",
        at="datasets",
    )
    for stage, formats in FORMATS.items()
)
_SOURCE_RULES = (
    Rule(
        f"self.stage in {list(_FROM_NOTHING)} || has(self.model)"
        " || (self.stage == 'Pretrain' && has(self.architecture))",
        lambda spec: (
            spec.stage in _FROM_NOTHING
            or spec.model is not None
            or (spec.stage == "Pretrain" and spec.architecture is not None)
        ),
        "set the model that training starts from; only Pretrain can start from an architecture",
        at="model",
        reason="FieldValueRequired",
    ),
    Rule(
        "!has(self.model) || !has(self.architecture)",
        lambda spec: spec.model is None or spec.architecture is None,
        "model is set too: remove one of them",
        at="architecture",
        reason="FieldValueForbidden",
    ),
    _only_for("Pretrain", "architecture"),
    Rule(
        "has(self.tokenizer) == has(self.architecture)",
        lambda spec: (spec.tokenizer is None) == (spec.architecture is None),
        "set it with an architecture, and only then: a model brings its own tokenizer",
        at="tokenizer",
    ),
    Rule(
        "!has(self.architecture) || !has(self.training)"
        " || self.training.maxLength <= self.architecture.maxPositionEmbeddings",
        lambda spec: (
            spec.architecture is None
            or spec.training is None
            or spec.training.max_length <= spec.architecture.max_position_embeddings
        ),
        "use at least training.maxLength",
        at="architecture.maxPositionEmbeddings",
    ),
)
_BLOCK_RULES = (
    Rule(
        "self.stage != 'Tokenizer' || has(self.tokenizerTraining)",
        lambda spec: spec.stage != "Tokenizer" or spec.tokenizer_training is not None,
        "set it, to say how large the vocabulary is: tokenizerTraining: {vocabSize: 32000}",
        at="tokenizerTraining",
        reason="FieldValueRequired",
    ),
    Rule(
        f"has(self.training) || self.stage in {list(_WITHOUT_TRAINING)}",
        lambda spec: spec.training is not None or spec.stage in _WITHOUT_TRAINING,
        "set globalBatchSize, learningRate, and epochs or maxSteps in it",
        at="training",
        reason="FieldValueRequired",
    ),
    Rule(
        "!has(self.training) || !has(self.training.maxTokens) || self.stage == 'Pretrain'",
        lambda spec: (
            spec.training is None or spec.training.max_tokens is None or spec.stage == "Pretrain"
        ),
        "only for stage Pretrain: use epochs or maxSteps",
        at="training.maxTokens",
        reason="FieldValueForbidden",
    ),
    Rule(
        f"has(self.tuning) || !has(self.model) || self.stage in {list(_WITHOUT_TRAINING)}",
        lambda spec: (
            spec.tuning is not None or spec.model is None or spec.stage in _WITHOUT_TRAINING
        ),
        "set which weights are trained: tuning: {method: LoRA} or {method: Full}",
        at="tuning",
        reason="FieldValueRequired",
    ),
    Rule(
        "!has(self.architecture) || !has(self.tuning) || self.tuning.method == 'Full'",
        lambda spec: (
            spec.architecture is None or spec.tuning is None or spec.tuning.method == "Full"
        ),
        "a new model is trained as a whole: use Full, or start from a model",
        at="tuning.method",
    ),
    *(
        not_for("Tokenizer", block, "stage Tokenizer trains no weights: remove it")
        for block in ("model", "tuning", "training")
    ),
    Rule(
        f"!has(self.prepare) || !(self.stage in {list(_WITHOUT_TRAINING)})",
        lambda spec: spec.prepare is None or spec.stage not in _WITHOUT_TRAINING,
        f"the stages {', '.join(_WITHOUT_TRAINING)} make no tokens to train on: remove it",
        at="prepare",
        reason="FieldValueForbidden",
    ),
    *(_no_evaluation_of_a_tokenizer(field) for field in ("every_steps", "batch_size")),
    Rule(
        "self.stage != 'Tokenizer' || self.workers.nodes * self.workers.processesPerNode <= 1",
        lambda spec: spec.stage != "Tokenizer" or spec.world_size == 1,
        "stage Tokenizer runs in one process: use 1 node with 1 process",
        at="workers",
    ),
)


def _batch_values(spec: Any) -> tuple[int, ...]:
    batch, unit = spec.training.global_batch_size, spec.rows_per_micro_step
    parts = (spec.workers.nodes, spec.workers.processes_per_node, spec.training.micro_batch_size)
    return (batch, unit, *parts, (batch // unit + 1) * unit)


_PARTS = ("self.workers.nodes", "self.workers.processesPerNode", "self.training.microBatchSize")
_UNIT = " * ".join(_PARTS)
_BATCH = "self.training.globalBatchSize"
_BATCH_RULE = Rule(
    # 0 is refused where it stands.
    f"!has(self.training) || {_UNIT} < 1 || {_BATCH} % ({_UNIT}) == 0",
    lambda spec: (
        spec.training is None or spec.training.global_batch_size % spec.rows_per_micro_step == 0
    ),
    "must be a multiple of workers.nodes x workers.processesPerNode x training.microBatchSize",
    at="training.globalBatchSize",
    template="%d is not a multiple of %d = workers.nodes %d x workers.processesPerNode %d x"
    " training.microBatchSize %d: use %d or another multiple",
    values_cel=", ".join((_BATCH, _UNIT, *_PARTS, f"({_BATCH} / ({_UNIT}) + 1) * {_UNIT}")),
    values=_batch_values,
)
_MERGE_RULE = Rule(
    "(has(self.tuning) && self.tuning.method == 'LoRA') || !self.output.export.mergeAdapter",
    lambda spec: spec.method == "LoRA" or not spec.output.export.merge_adapter,
    "only for tuning.method LoRA: with Full there is no adapter, so remove it",
    at="output.export.mergeAdapter",
    reason="FieldValueForbidden",
)


def _keeps_dropout(spec: Any) -> bool:
    block = getattr(spec, _BLOCKS[spec.stage])
    return block is not None and not block.disable_dropout


def _dropout_rule(stage: str) -> Rule:
    block = _BLOCKS[stage]
    return Rule(
        f"self.stage != '{stage}' || !has(self.tuning) || !has(self.tuning.lora)"
        " || self.tuning.lora.dropout == 0.0"
        f" || (has(self.{block}) && !self.{block}.disableDropout)",
        lambda spec: (
            spec.stage != stage
            or spec.tuning is None
            or spec.tuning.lora is None
            or spec.tuning.lora.dropout == 0
            or _keeps_dropout(spec)
        ),
        f"stage {stage} leaves dropout out: remove it, or set {block}: {{disableDropout: false}}",
        at="tuning.lora.dropout",
    )


_PREFERENCE_RULES = (
    *(_dropout_rule(stage) for stage in ("DPO", "KTO", "Reward")),
    Rule(
        "self.stage != 'KTO' || !has(self.training) || self.training.microBatchSize >= 2"
        " || (has(self.kto) && self.kto.lossType != 'kto')",
        lambda spec: (
            spec.stage != "KTO"
            or spec.training is None
            or spec.training.micro_batch_size >= 2
            or (spec.kto is not None and spec.kto.loss_type != "kto")
        ),
        "the loss kto holds each answer against the others of its batch: use at least 2",
        at="training.microBatchSize",
    ),
)

_MIXED = ("Pretrain", "SFT", "DPO", "KTO", "Reward")
_WEIGHT_RULES = (
    Rule(
        "!has(self.datasets) || self.datasets.all(d, has(d.weight))"
        " || !self.datasets.exists(d, has(d.weight))",
        lambda spec: len({dataset.weight is None for dataset in spec.datasets}) <= 1,
        "some have a weight and some have none: set it for all of them, or remove it",
        at="datasets",
    ),
    Rule(
        f"self.stage in {list(_MIXED)} || !has(self.datasets)"
        " || !self.datasets.exists(d, has(d.weight))",
        lambda spec: (
            spec.stage in _MIXED or all(dataset.weight is None for dataset in spec.datasets)
        ),
        f"only the stages {', '.join(_MIXED)} mix data sets by weight: remove the weights",
        at="datasets",
    ),
    Rule(
        "!has(self.training) || !has(self.training.mixing)"
        " || (has(self.datasets) && self.datasets.exists(d, has(d.weight)))",
        lambda spec: (
            spec.training is None
            or spec.training.mixing is None
            or any(dataset.weight is not None for dataset in spec.datasets)
        ),
        "only where data sets have a weight: remove it, or give the data sets weights",
        at="training.mixing",
        reason="FieldValueForbidden",
    ),
)

RULES = (
    *_SOURCE_RULES,
    *_BLOCK_RULES,
    *(_only_for(stage, block) for stage, block in _BLOCKS.items()),
    *_FORMAT_RULES,
    *_PREFERENCE_RULES,
    *_WEIGHT_RULES,
    *CUSTOM_RULES,
    *EVALUATE_RULES,
    *ORDER_RULES,
    _BATCH_RULE,
    _MERGE_RULE,
)
"""The rules of `RunSpec`."""
