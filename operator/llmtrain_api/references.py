"""References to other runs: what `fromRun` names, and the run that it was found to be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import IntOrString, Rule

MAX_NAME_LENGTH = 40
"""Children and host names are made of a run's name: `<run>-a<attempt>-<node>` must fit in 63."""

FINAL = "Final"


class FromRun(ApiModel):
    """Another run in the same namespace, whose result is read once it has succeeded."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
    """Name of an LLMTrainRun in this namespace. The two may be applied in any order: this run
    waits, without pods, until that one has succeeded. Which one it was stays in
    `status.resolved.parents`, so new attempts read the same."""


class ModelFromRun(FromRun):
    """The model of another run in the same namespace, read once that run has succeeded."""

    checkpoint: Annotated[
        int | str,
        IntOrString(max_length=16),
        Rule(
            f"type(self) == int ? self >= 1 : self == '{FINAL}'",
            lambda value: value >= 1 if isinstance(value, int) else value == FINAL,
            f"use {FINAL}, or the step of a checkpoint, such as 400",
        ),
    ] = FINAL
    """`Final`: the model at its end; with LoRA it needs `output.export.mergeAdapter`. A number: the
    checkpoint of that step, if the run trained all weights and still has it (`checkpoint.keep`)."""


ONE_SOURCE = Rule(
    "has(self.uri) != has(self.fromRun)",
    lambda source: (source.uri is None) != (source.from_run is None),
    "set one of uri and fromRun, and only one",
)
"""For whatever is read from a place or from another run."""

SourceField = Literal["model", "tokenizer"]
SOURCE_FIELDS: tuple[SourceField, ...] = ("model", "tokenizer")
"""The fields of a spec that may hold `fromRun`."""


class Parent(ApiModel):
    """A run that this one starts from."""

    field: SourceField
    """The field of the spec that names it."""

    name: Annotated[str, Field(max_length=253)]
    """Its name."""

    uid: Annotated[str, Field(max_length=64)]
    """Its UID: a run of the same name that is applied later is another one."""

    uri: Annotated[str, Field(max_length=1280)]
    """The folder of its results that is read: what `uri` of that field would name."""

    spec_hash: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 of what its weights follow from, as in its own `status.resolved.specHash`."""
