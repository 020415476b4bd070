"""What a trainer reports to the operator, and the line of the training log that it is made of."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmtrain_api.base import ApiModel, Time
from llmtrain_api.markers import ListMap
from llmtrain_api.references import Parent

_Text = Annotated[str, Field(max_length=256)]
_Count = Annotated[int, Field(ge=0, le=10**15)]
"""Stays exact in JSON, whose numbers have 53 bits in many readers."""

PROGRESS_PATH = "/v1alpha1/progress"


class Progress(ApiModel):
    """How far training is: the newest values only, so any of them may be lost on the way."""

    step: _Count
    """Optimizer steps done, those of earlier attempts included."""

    total_steps: _Count
    """Optimizer steps in all."""

    epoch: Annotated[float, Field(ge=0, le=10**6)] = 0
    """Passes over the training rows done."""

    loss: float | None = None
    """Training loss, mean since the line before; never NaN or infinite."""

    eval_loss: float | None = None
    """Loss on the held-out rows at the last evaluation."""

    best_step: _Count | None = None
    """Optimizer steps after which the model was best, where `evaluation.metricForBestModel` says
    what that is."""

    learning_rate: float | None = None
    """Learning rate of the last step."""

    tokens_per_second: Annotated[float, Field(ge=0, le=10**15)] | None = None
    """Trained tokens per second over all processes, padding not counted."""

    tokens_per_second_per_device: Annotated[float, Field(ge=0, le=10**15)] | None = None
    """The same for each process, which has one device."""

    mfu: Annotated[float, Field(ge=0, le=100)] | None = None
    """Share of the devices' peak in bf16 that training uses, from 0 to 1; none where the device is
    not known or training is not in bf16."""

    data_wait: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the training time that the first process waited for rows, from 0 to 1."""

    peak_memory_device: _Count | None = None
    """Most memory of its device that the first process has held, in bytes; none on a CPU."""

    peak_memory_host: _Count | None = None
    """Most memory of the host that the first process has held, in bytes."""

    seconds_per_step: Annotated[float, Field(ge=0, le=10**6)] | None = None
    """Median over the newest steps of this attempt; the operator's ETA is made of it."""


class Checkpointed(ApiModel):
    """A checkpoint that is whole in storage."""

    name: Annotated[str, Field(max_length=64, pattern=r"^[0-9]+-a[0-9]+r[0-9]+$")]
    """Its folder's name under `checkpoints/`, such as `120-a1r0`."""

    step: _Count
    """Optimizer steps done when it was saved."""

    time: Time
    """When its manifest was written."""


class Artifacts(ApiModel):
    """Where the results are; URIs in full."""

    model: _Text | None = None
    """Folder of the final or merged model."""

    adapter: _Text | None = None
    """Folder of the LoRA adapter."""

    loss_plot: _Text | None = None
    """The plot of the loss."""

    results: _Text | None = None
    """`all_results.json`."""

    logs: _Text | None = None
    """Folder of the logs of all attempts."""

    tensorboard: _Text | None = None
    """Folder of TensorBoard's event files of all attempts."""


class Resolved(ApiModel):
    """What was chosen where the spec left it open."""

    precision: Literal["BF16", "FP32"] | None = None
    """Number format of the forward and backward pass."""

    device: Annotated[str, Field(max_length=64)] | None = None
    """Device of the first process, such as `NVIDIA H100 80GB HBM3` or `cpu`."""

    gradient_accumulation_steps: _Count | None = None
    """Micro-batches per process and optimizer step."""

    trainable_parameters: _Count | None = None
    """Number of weights that are trained."""

    total_parameters: _Count | None = None
    """Number of weights in all."""

    spec_hash: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 of the parts of the spec that the weights follow from."""

    image: Annotated[str, Field(max_length=512)] | None = None
    """Trainer image of the latest attempt, by digest once a pod has pulled it."""

    parents: Annotated[list[Parent], Field(max_length=2), ListMap(("field",))] | None = None
    """The runs that `fromRun` was found to name, and the folders that are read of them."""


class Report(ApiModel):
    """The body of a POST to the operator's progress endpoint. Posting one twice is harmless."""

    attempt: Annotated[int, Field(ge=1)]
    """Attempt of the pod that reports."""

    activity: Literal["Preparing", "Loading", "Training", "Evaluating", "Saving", "Finishing"]
    """What the pod is doing."""

    message: Annotated[str, Field(max_length=256)] = ""
    """What it is doing, in words, such as `downloading s3://models/x (120/269 MB)`."""

    progress: Progress | None = None
    """How far training is, once it has begun."""

    checkpoints: Annotated[list[Checkpointed], Field(max_length=5)] = []
    """The newest verified checkpoints, newest first."""

    artifacts: Artifacts | None = None
    """Where the results are, as soon as each is there."""

    resolved: Resolved | None = None
    """What was chosen where the spec left it open."""

    @model_validator(mode="after")
    def _name_each_checkpoint_once(self) -> Self:
        """Holds what the list in the status holds, where names are keys."""
        names = [checkpoint.name for checkpoint in self.checkpoints]
        if len(set(names)) < len(names):
            raise ValueError("checkpoints: the same name twice")
        return self
