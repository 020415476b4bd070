"""What is trained on what and how: the blocks of a run's spec that the trainer reads.

Names are those of transformers and TRL in camelCase, so that `learning_rate` there is
`learningRate` here. Defaults that differ from theirs say so.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, FreeFields, Uri
from llmtrain_api.markers import Atomic, Rule
from llmtrain_api.references import ONE_SOURCE, ModelFromRun

_ENDPOINT = r"https?://[^/ ]+"


class Model(ApiModel):
    """The model that training starts from."""

    rules: ClassVar = (ONE_SOURCE,)

    uri: Uri | None = None
    """Folder of a Hugging Face model: `config.json`, safetensors weights and the tokenizer. For
    `stage: Evaluate` also a checkpoint of a run with all weights trained. Exactly one of `uri` and
    `fromRun` must be set."""

    from_run: ModelFromRun | None = None
    """The model of another run in this namespace, once that run has succeeded."""

    adapter_uri: Uri | None = None
    """Folder of a LoRA adapter to put on the model, for `stage: Evaluate` only: `adapter/` or a
    checkpoint of a run, or any that PEFT has written. Its tokenizer is used where it has one.
    Default: the model as it is."""


class LoRA(ApiModel):
    """Low-rank adapters, by PEFT."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update, PEFT's `r`. Default: 16 (PEFT: 8)."""

    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """The update is scaled by `alpha / rank`, PEFT's `lora_alpha`. Default: 32 (PEFT: 8)."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input. Default: 0, as in PEFT."""

    target_modules: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=256)]],
            Field(min_length=1, max_length=64),
            Atomic(),
        ]
        | None
    ) = None
    """Names of the linear layers that get an adapter, such as `q_proj`. Default: all linear layers
    but the output head (PEFT's `all-linear`)."""


class Tuning(ApiModel):
    """Which weights are trained."""

    rules: ClassVar = (
        Rule(
            "self.method == 'LoRA' || !has(self.lora)",
            lambda tuning: tuning.method == "LoRA" or tuning.lora is None,
            "only for method LoRA: remove it, or set method: LoRA",
            at="lora",
            reason="FieldValueForbidden",
        ),
    )

    method: Literal["LoRA", "Full"]
    """`LoRA` trains adapters beside the frozen model; `Full` trains every weight, kept in fp32."""

    lora: LoRA | None = None
    """Settings of `method: LoRA`; refused with any other method."""


class Training(ApiModel):
    """How training runs: the optimizer, the batch, the schedule."""

    rules: ClassVar = (
        Rule(
            "has(self.epochs) || has(self.maxSteps) || has(self.maxTokens)",
            lambda training: (
                training.epochs is not None
                or training.max_steps is not None
                or training.max_tokens is not None
            ),
            "set one of epochs and maxSteps (or maxTokens, for Pretrain): it says when training"
            " ends",
            at="epochs",
            reason="FieldValueRequired",
        ),
        Rule(
            "!has(self.epochs) || !has(self.maxSteps)",
            lambda training: training.epochs is None or training.max_steps is None,
            "epochs is set too: remove one of them",
            at="maxSteps",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.maxTokens) || !(has(self.epochs) || has(self.maxSteps))",
            lambda training: (
                training.max_tokens is None
                or (training.epochs is None and training.max_steps is None)
            ),
            "epochs or maxSteps is set too: remove all but one",
            at="maxTokens",
            reason="FieldValueForbidden",
        ),
    )

    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Passes over the training rows, transformers' `num_train_epochs`. Exactly one of `epochs`,
    `maxSteps` and `maxTokens` must be set."""

    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Optimizer steps, transformers' `max_steps`."""

    max_tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Tokens to train on, for `stage: Pretrain` only; rounded up to whole optimizer steps of
    globalBatchSize x maxLength tokens."""

    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    """Rows per optimizer step over all processes. Gradient accumulation is derived:
    globalBatchSize = nodes x processesPerNode x microBatchSize x accumulation."""

    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    """Rows per process and forward pass, transformers' `per_device_train_batch_size`. Default: 1
    (transformers: 8)."""

    max_length: Annotated[int, Field(ge=8, le=10_000_000)] = 1024
    """Longest row in tokens. SFT cuts longer rows at the end and drops those whose answers are cut
    off as a whole. DPO and KTO cut answers at the end and drop rows whose prompt alone is as long.
    Reward drops pairs with a longer conversation. Pretrain cuts its running text into sequences of
    this length. Default: 1024, as in TRL."""

    mixing: Literal["FirstExhausted", "AllExhausted"] | None = None
    """Rows of an epoch where data sets have a weight, and only there, as in
    `datasets.interleave_datasets`; with `stage: Pretrain` sequences of `maxLength` tokens.
    `FirstExhausted`: until one data set is used up, so that none repeats. `AllExhausted`: until all
    are, the others repeated. Default: `FirstExhausted`."""

    group_by_length: bool = False
    """Put rows of about the same length into the same batch, for less padding: rows are shuffled,
    cut into groups of up to 50 global batches, and sorted in each. For SFT without packing, DPO and
    Reward. Default: off, as in transformers."""

    learning_rate: Annotated[
        float,
        Rule(
            "self > 0.0 && self < 1.0",
            lambda value: 0 < value < 1,
            "use a value between 0 and 1, such as 2.0e-4 for LoRA or 2.0e-5 for full tuning",
        ),
    ]
    """Peak learning rate. Required, since the right value differs by a factor of 10 between LoRA
    (about 2.0e-4) and full tuning (about 2.0e-5)."""

    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "linear"
    """Schedule of the learning rate, by transformers' name. Default: transformers' `linear`."""

    warmup_steps: Annotated[float, Field(ge=0, le=10_000_000)] = 0
    """Steps of linear warm-up; a value below 1 is a share of all steps. Default: 0, as in
    transformers."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's decoupled weight decay. Default: 0, as in transformers."""

    max_grad_norm: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Gradients are clipped to this norm; 0 leaves them as they are. Default: 1, as in
    transformers."""

    optim: Annotated[str, Field(min_length=1, max_length=64)] = "adamw_torch"
    """Optimizer, by transformers' name (`OptimizerNames`). Default: `adamw_torch`."""

    precision: Literal["Auto", "BF16", "FP32"] = "Auto"
    """Number format of the forward and backward pass. `Auto`: bf16 where the device computes in it,
    else fp32. What was chosen is in `status.resolved.precision`."""

    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time. Default:
    off, as in transformers."""

    logging_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Optimizer steps between two lines of the training log. Default: 10, as in TRL."""

    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 42
    """Seed of sample order, dropout and new weights. Default: 42, as in transformers."""

    deterministic: bool = False
    """Only operations that give the same bits each time, transformers' `full_determinism`: slower
    on a GPU, and refused in the middle of training where an operation knows no such way. On a CPU
    the same spec, data, image, topology and number of threads give the same weights without it.
    Default: off, as in transformers."""

    arguments: FreeFields = {}
    """Any other argument of the stage's trainer, by its own name (`adam_beta2: 0.95`): of
    transformers' `TrainingArguments` for Pretrain, else of TRL's `SFTConfig`, `DPOConfig`,
    `KTOConfig` or `RewardConfig`. Checked when the trainer starts; an argument that a field of this
    spec owns is refused with that field's name."""


class Checkpoint(ApiModel):
    """Checkpoints from which a run goes on after a failure or a preemption."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Optimizer steps between two checkpoints. Default: 500, transformers' `save_steps`."""

    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """Newest verified checkpoints that stay in storage. Default: 2."""


class Export(ApiModel):
    """What is written at the end."""

    merge_adapter: bool = False
    """With `method: LoRA`: also write the base model with the adapter merged in. Default: only the
    adapter is written, to `adapter/`."""


class Output(ApiModel):
    """Where results go."""

    uri: Uri
    """Prefix that this run owns. Applying the same spec again resumes there, or ends at once when
    it is finished; a run with another spec is refused."""

    export: Export = Export()
    """What is written at the end."""


class Storage(ApiModel):
    """How object storage is reached; one account for all URIs of the run."""

    secret_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Secret in the run's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, optionally,
    AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and AWS_REGION; a change of the keys reaches running pods.
    Default: none, for workload identity."""

    endpoint: (
        Annotated[
            str,
            Field(max_length=512),
            Rule(
                f"self.matches('^{_ENDPOINT}$')",
                lambda value: re.fullmatch(_ENDPOINT, value) is not None,
                "use http://host:port or https://host:port, without a path",
            ),
        ]
        | None
    ) = None
    """URL of an S3 server, such as `http://minio.storage:9000`. Default: AWS_ENDPOINT_URL of the
    Secret, so that the same manifest works in every cluster; without it AWS."""

    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Region of the buckets. Default: AWS_REGION of the Secret; without it us-east-1."""
