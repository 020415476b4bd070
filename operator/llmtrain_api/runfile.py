"""`run.json`: all that a trainer pod is told, and the trainer's only input.

The operator writes it into the ConfigMap of an attempt. On a machine without Kubernetes a user
writes it by hand, or hands over the manifest of an `LLMTrainRun` as it is.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmtrain_api.base import ApiModel
from llmtrain_api.references import Parent
from llmtrain_api.run import NAME_RULE, NOT_FROM_ITSELF, RunSpec

SPEC_FIELDS_THAT_MAKE_THE_RESULT = (
    "stage",
    "model",
    "architecture",
    "tokenizer",
    "datasets",
    "evaluation",
    "tokenizerTraining",
    "pretrain",
    "sft",
    "dpo",
    "kto",
    "reward",
    "custom",
    "evaluate",
    "tuning",
    "training",
    "output",
)


def _check_name(name: str) -> str:
    if not NAME_RULE.holds(name):
        raise ValueError(NAME_RULE.message)
    return name


class RunFile(ApiModel):
    """One attempt of one run, as the trainer sees it."""

    rules: ClassVar = NOT_FROM_ITSELF

    name: Annotated[str, AfterValidator(_check_name)]
    """Name of the run."""

    namespace: Annotated[str, Field(max_length=63)] = ""
    """Namespace of the run; empty on a machine without Kubernetes."""

    uid: Annotated[str, Field(max_length=64)] = ""
    """UID of the LLMTrainRun; empty on a machine without Kubernetes."""

    attempt: Annotated[int, Field(ge=1)] | None = None
    """Number of the attempt. Default: the next one that the output prefix does not know."""

    task: Literal["Prepare"] | None = None
    """`Prepare`: only make the tokens, in one process. Absent for training, so that older trainers
    take the file."""

    spec: RunSpec
    """The spec with all defaults in place, and with folders in the place of `fromRun`."""

    parents: Annotated[list[Parent], Field(max_length=2)] | None = None
    """The runs whose folders those are. Absent for none, so that older trainers take the file."""

    master_address: Annotated[str, Field(max_length=253)] = "127.0.0.1"
    """Host name of node 0, where all processes meet."""

    progress_url: Annotated[str, Field(max_length=512)] = ""
    """Where progress is posted; empty for nowhere."""

    @property
    def nodes(self) -> int:
        """Pods of the attempt."""
        return 1 if self.task == "Prepare" else self.spec.workers.nodes

    @property
    def processes_per_node(self) -> int:
        """Processes in each of them."""
        return 1 if self.task == "Prepare" else self.spec.workers.processes_per_node


def spec_hash(spec: RunSpec) -> str:
    """Returns the SHA-256 of what the trained weights follow from, as 64 hex digits.

    Where pods run, how often they restart and how storage is reached do not count; the number of
    processes does, since it decides which process sees which rows. A field that has its default, or
    a block without fields, counts as not there, so that a field added in a later version leaves the
    hash of a run that started before as it was. It follows that a default must never change.

    `spec` is the resolved one: what `fromRun` named counts by its folder, as if `uri` named it.
    """
    chosen = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if spec.training is not None and spec.training.mixing == "FirstExhausted":
        del chosen["training"]["mixing"]  # It is what none means, so it counts as none.
    parts: dict[str, object] = {
        name: chosen[name] for name in SPEC_FIELDS_THAT_MAKE_THE_RESULT if chosen.get(name)
    }
    parts["topology"] = [spec.workers.nodes, spec.workers.processes_per_node]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
