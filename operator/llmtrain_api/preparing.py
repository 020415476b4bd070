"""How rows become tokens before a run trains: once, kept for later runs, and by whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Uri
from llmtrain_api.markers import Atomic
from llmtrain_api.workers import Resources, Toleration

Task = Literal["Train", "Prepare"]
"""What an attempt is for: to train, or only to make the tokens that the next one trains on."""


class PrepareJob(ApiModel):
    """The pod that makes the tokens, in a Job of its own; it needs no devices.

    Of `workers` it has the image, Secrets, service account, priority, environment, scratch volume
    and grace time, and the labels and annotations of `podTemplate`.
    """

    resources: Resources = Resources()
    """Its resources, such as `limits: {cpu: 16, memory: 16Gi}`. More cores make tokens faster;
    memory need not grow with the data. Default: none."""

    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=32)
    ] = {}
    """Labels that its node must have."""

    tolerations: Annotated[list[Toleration], Field(max_length=32), Atomic()] = []
    """Taints that it tolerates."""


class Prepare(ApiModel):
    """Rows become tokens once, on one node; the others, and later runs, read them from storage."""

    cache_uri: Uri | None = None
    """Folder for the tokens of all runs that name it. They lie there by a hash of what they follow
    from: data, tokenizer, template, formats. A run with the same data and tokenizer begins at once,
    whatever else differs; `stage: Pretrain` whatever `training.maxLength` is. Nothing is ever
    deleted there; each folder below it may be, at any time. Default: `tokens/` under `output.uri`,
    for the attempts and nodes of this run alone."""

    timeout_seconds: Annotated[int, Field(ge=10, le=31_536_000)] = 86_400
    """Seconds that the other nodes wait for the tokens, which the first one makes. Default: a
    day."""

    job: PrepareJob | None = None
    """Make the tokens in a Job of its own, which ends before the gang takes its devices. For data
    whose tokens take longer than devices may stand idle; where they are in the cache it ends in
    seconds. Default: the first node of the gang makes them."""
