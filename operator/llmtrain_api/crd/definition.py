"""The CustomResourceDefinitions as a whole: names, columns, schema, rules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from llmtrain_api import GROUP, VERSION
from llmtrain_api.crd.frozen import frozen_rules
from llmtrain_api.crd.schema import Schema, SchemaError, structural_schema
from llmtrain_api.crd.structural import faults
from llmtrain_api.markers import MUTABLE, VALIDATIONS, Rule
from llmtrain_api.run import NAME_RULE, NOT_FROM_ITSELF, RunSpec
from llmtrain_api.schedule import SCHEDULE_NAME_RULE, ScheduleSpec, ScheduleStatus
from llmtrain_api.status import RunStatus

_Column = tuple[str, str, str, bool]
"""Name, type, place, and whether it is shown with `-o wide` only."""


@dataclass(frozen=True)
class _Kind:
    name: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    rules: tuple[Rule, ...]
    """Rules about the object as a whole: its name, and name and spec together."""
    columns: tuple[_Column, ...]
    selectable: tuple[str, ...]
    freezes: bool
    """Whether `spec` is frozen once `status.attempt` is set."""


_AGE: _Column = ("Age", "date", ".metadata.creationTimestamp", False)
_RUN_COLUMNS: tuple[_Column, ...] = (
    ("Stage", "string", ".spec.stage", False),
    ("Phase", "string", ".status.phase", False),
    ("Step", "string", ".status.progress.summary", False),
    ("Loss", "string", ".status.progress.loss", False),
    ("ETA", "string", ".status.progress.eta", False),
    ("Epoch", "string", ".status.progress.epoch", True),
    ("Tokens/s", "string", ".status.progress.tokensPerSecond", True),
    ("MFU", "string", ".status.progress.mfu", True),
    ("Nodes", "integer", ".spec.workers.nodes", True),
    ("Attempt", "integer", ".status.attempt", True),
    ("Checkpoint", "string", ".status.latestCheckpoint", True),
    ("Model", "string", ".status.model", True),
    _AGE,
)
_SCHEDULE_COLUMNS: tuple[_Column, ...] = (
    ("Schedule", "string", ".spec.schedule", False),
    ("Timezone", "string", ".spec.timeZone", False),
    ("Suspend", "boolean", ".spec.suspend", False),
    ("Active", "integer", ".status.activeRuns", False),
    ("Last", "date", ".status.lastScheduleTime", False),
    # kubectl writes a date as the time since, and `<invalid>` for what is still to come.
    ("Next", "string", ".status.nextScheduleTime", False),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", True),
    ("Success", "date", ".status.lastSuccessfulTime", True),
    _AGE,
)


def llmtrainruns() -> dict[str, Any]:
    """Returns the CRD of `LLMTrainRun` as plain data, in the order that it is written in.

    Raises:
        SchemaError: a model cannot be held by a CRD; the message names each place.
    """
    return _definition(
        _Kind(
            name="LLMTrainRun",
            short_name="ltr",
            description="One model, trained once: what to train, on what data, and where it goes.",
            spec=RunSpec,
            status=RunStatus,
            rules=(NAME_RULE, *NOT_FROM_ITSELF),
            columns=_RUN_COLUMNS,
            selectable=(".spec.stage", ".status.phase"),
            freezes=True,
        )
    )


def llmtrainschedules() -> dict[str, Any]:
    """Returns the CRD of `LLMTrainSchedule`.

    Raises:
        SchemaError: a model cannot be held by a CRD; the message names each place.
    """
    return _definition(
        _Kind(
            name="LLMTrainSchedule",
            short_name="lts",
            description="Runs made by the clock, all of one template.",
            spec=ScheduleSpec,
            status=ScheduleStatus,
            rules=(SCHEDULE_NAME_RULE,),
            columns=_SCHEDULE_COLUMNS,
            selectable=(),
            freezes=False,
        )
    )


def _definition(kind: _Kind) -> dict[str, Any]:
    singular = kind.name.lower()
    selectable = [{"jsonPath": place} for place in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{singular}s.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": f"{singular}s",
                "singular": singular,
                "shortNames": [kind.short_name],
                "categories": ["llmtrain"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    **({"selectableFields": selectable} if selectable else {}),
                    "additionalPrinterColumns": [_column(*column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def _column(name: str, kind: str, place: str, wide: bool) -> dict[str, Any]:
    # Priority 0 is left out: the API server drops it, and a file that differs from what is stored
    # looks like drift to GitOps.
    return {"name": name, "type": kind, "jsonPath": place, **({"priority": 1} if wide else {})}


def _root(kind: _Kind) -> Schema:
    spec, status = structural_schema(kind.spec), structural_schema(kind.status)
    # kstatus takes an object without status for finished: -1 says that none was looked at yet.
    status["default"] = {"observedGeneration": -1}
    rules = [rule.keys()[VALIDATIONS][0] for rule in kind.rules]
    if kind.freezes:
        rules += frozen_rules(spec)
    spec = _published(spec)
    if found := [*faults(spec, "spec"), *faults(status, "status")]:
        raise SchemaError("\n".join(found))
    return {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {
                "description": f"Version of the schema that this object follows: {GROUP}/"
                f"{VERSION}.",
                "type": "string",
            },
            "kind": {"description": f"Kind of this object: {kind.name}.", "type": "string"},
            # The name has a schema so that its rule can report at it.
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 253}},
            },
            "spec": spec,
            "status": status,
        },
        VALIDATIONS: rules,
    }


def _published(schema: Schema) -> Schema:
    """Returns `schema` without our marks, and with each default in words for `kubectl explain`."""
    kept = {key: value for key, value in schema.items() if key != MUTABLE}
    default = kept.get("default", {})
    if default not in ({}, "") and "Default:" not in kept["description"]:
        words = default if isinstance(default, str) else json.dumps(default)
        kept["description"] += f" Default: {words}."
    if "properties" in kept:
        kept["properties"] = {name: _published(field) for name, field in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _published(kept["items"])
    return kept
