"""The CustomResourceDefinition of `LLMTrainRun` as a whole: names, columns, schema, rules."""

from __future__ import annotations

import json
from typing import Any

from llmtrain_api import GROUP, VERSION
from llmtrain_api.crd.frozen import frozen_rules
from llmtrain_api.crd.schema import Schema, SchemaError, structural_schema
from llmtrain_api.crd.structural import faults
from llmtrain_api.markers import MUTABLE, VALIDATIONS
from llmtrain_api.run import NAME_RULE, NOT_FROM_ITSELF, RunSpec
from llmtrain_api.status import RunStatus

_COLUMNS = (
    # name, type, place, only with `-o wide`
    ("Stage", "string", ".spec.stage", False),
    ("Phase", "string", ".status.phase", False),
    ("Step", "string", ".status.progress.summary", False),
    ("Loss", "string", ".status.progress.loss", False),
    ("ETA", "string", ".status.progress.eta", False),
    ("Epoch", "string", ".status.progress.epoch", True),
    ("Tokens/s", "string", ".status.progress.tokensPerSecond", True),
    ("Nodes", "integer", ".spec.workers.nodes", True),
    ("Attempt", "integer", ".status.attempt", True),
    ("Checkpoint", "string", ".status.latestCheckpoint", True),
    ("Model", "string", ".spec.model.uri", True),
    ("Age", "date", ".metadata.creationTimestamp", False),
)
_SELECTABLE = (".spec.stage", ".status.phase")


def llmtrainruns() -> dict[str, Any]:
    """Returns the CRD of `LLMTrainRun` as plain data, in the order that it is written in.

    Raises:
        SchemaError: a model cannot be held by a CRD; the message names each place.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"llmtrainruns.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": "LLMTrainRun",
                "listKind": "LLMTrainRunList",
                "plural": "llmtrainruns",
                "singular": "llmtrainrun",
                "shortNames": ["ltr"],
                "categories": ["llmtrain"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "selectableFields": [{"jsonPath": place} for place in _SELECTABLE],
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _column(name: str, kind: str, place: str, wide: bool) -> dict[str, Any]:
    # Priority 0 is left out: the API server drops it, and a file that differs from what is stored
    # looks like drift to GitOps.
    return {"name": name, "type": kind, "jsonPath": place, **({"priority": 1} if wide else {})}


def _root() -> Schema:
    spec = structural_schema(RunSpec)
    status = structural_schema(RunStatus)
    # kstatus takes an object without status for finished: -1 says that none was looked at yet.
    status["default"] = {"observedGeneration": -1}
    about_all = [rule.keys()[VALIDATIONS][0] for rule in (NAME_RULE, *NOT_FROM_ITSELF)]
    rules = [*about_all, *frozen_rules(spec)]
    spec = _published(spec)
    if found := [*faults(spec, "spec"), *faults(status, "status")]:
        raise SchemaError("\n".join(found))
    return {
        "description": "One model, trained once: what to train, on what data, and where it goes.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {
                "description": f"Version of the schema that this object follows: {GROUP}/"
                f"{VERSION}.",
                "type": "string",
            },
            "kind": {"description": "Kind of this object: LLMTrainRun.", "type": "string"},
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
