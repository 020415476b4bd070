"""The pods that train: how many, how large, where, and what a platform adds to them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, FreeFields, Name, Quantity
from llmtrain_api.markers import Atomic, ListMap, Rule

_Value = Annotated[str, Field(max_length=1024)]

RESERVED_ENV = (
    "HOME",
    "JOB_COMPLETION_INDEX",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "WORLD_SIZE",
)
"""What llmtrain, torchrun and the Job set; a run that sets one of them breaks its gang."""


class Resources(ApiModel):
    """Resources of each trainer container, as in a pod."""

    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """Upper bounds, such as `nvidia.com/gpu: 8` or `memory: 64Gi`."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the scheduler sets aside. Default: the limits."""


class LocalObject(ApiModel):
    """A reference to an object in the run's namespace."""

    name: Name
    """Name of the object."""


class EnvVar(ApiModel):
    """An environment variable of the trainer container."""

    name: Annotated[
        str,
        Field(max_length=253),
        Rule(
            "self.matches('^[A-Za-z_][A-Za-z0-9_.-]*$')",
            lambda name: re.fullmatch("[A-Za-z_][A-Za-z0-9_.-]*", name) is not None,
            "use letters, digits and '_', starting with a letter or '_'",
        ),
        Rule(
            f"!self.startsWith('LLMTRAIN_') && !(self in {list(RESERVED_ENV)})",
            lambda name: not name.startswith("LLMTRAIN_") and name not in RESERVED_ENV,
            "LLMTRAIN_*, HOME and the variables of torchrun are set by llmtrain: use another name",
        ),
    ]
    """Name of the variable. LLMTRAIN_*, HOME and what torchrun sets are refused."""

    value: Annotated[str, Field(max_length=8192)] = ""
    """Its value."""


class Toleration(ApiModel):
    """Lets the pods onto nodes with a matching taint, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; without it, every taint."""

    operator: Literal["Exists", "Equal"] | None = None
    """`Exists` or `Equal`. Default: Kubernetes' `Equal`."""

    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint, for `Equal`."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; without it, every effect."""

    toleration_seconds: Annotated[int, Field(ge=0, le=86_400_000)] | None = None
    """How long a `NoExecute` taint is tolerated, in seconds."""


class Scratch(ApiModel):
    """The volume for inputs, caches and checkpoints on their way to storage."""

    size_limit: Quantity | None = None
    """Bound of the `emptyDir` volume, such as `200Gi`. Default: none."""


class Workers(ApiModel):
    """The gang of pods: one per node, all there or none training."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods, each on a node of its own where the cluster has enough of them."""

    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes in each pod: one per GPU, or 1 on CPU."""

    resources: Resources = Resources()
    """Resources of each trainer container."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Trainer image. Default: the operator's `trainerImage` of the day the attempt began."""

    image_pull_secrets: Annotated[list[LocalObject], Field(max_length=16), ListMap(("name",))] = []
    """Secrets for pulling the image."""

    service_account_name: Name | None = None
    """ServiceAccount of the pods, for workload identity. Default: the namespace's `default`."""

    priority_class_name: Name | None = None
    """PriorityClass of the pods."""

    node_selector: Annotated[dict[str, _Value], Field(max_length=32)] = {}
    """Labels that a node must have."""

    tolerations: Annotated[list[Toleration], Field(max_length=32), Atomic()] = []
    """Taints that the pods tolerate."""

    affinity: FreeFields | None = None
    """Affinity of the pods, as in a pod. Default: the pods of a run prefer different nodes."""

    env: Annotated[list[EnvVar], Field(max_length=64), ListMap(("name",))] = []
    """Environment variables of the trainer container."""

    scratch: Scratch = Scratch()
    """The scratch volume."""

    termination_grace_period_seconds: Annotated[int, Field(ge=10, le=86_400)] = 120
    """Seconds between the order to stop and the kill, in which a checkpoint is saved and logs are
    uploaded. Default: 120."""

    pod_template: FreeFields | None = None
    """What else the pods need, as `metadata` and `spec` of a pod, merged over ours: lists of named
    objects by name. What the operator must own is refused with the field's name."""
