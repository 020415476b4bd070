"""Good specs and specs that are refused at `kubectl apply`, for pydantic and the cluster alike.

Each bad spec is one mistake in `good()`. The unit tests hold that pydantic refuses it, the
end-to-end tests that the API server does, with the message in `golden/refused_at_apply.txt`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]

REMOVE = object()
"""Stands for a field to take away."""


def good() -> Spec:
    """Returns the smallest useful spec."""
    return {
        "stage": "SFT",
        "model": {"uri": "s3://models/smollm2-135m/"},
        "datasets": [{"uri": "s3://data/alpaca.jsonl", "format": "Alpaca"}],
        "tuning": {"method": "LoRA"},
        "training": {"epochs": 1, "globalBatchSize": 8, "learningRate": 2.0e-4},
        "output": {"uri": "s3://runs/good/"},
    }


def changed(spec: Spec, path: str, value: Any) -> Spec:
    """Returns `spec` with the field at `path`, such as `training.epochs`, set or taken away."""
    result = copy.deepcopy(spec)
    *blocks, name = path.split(".")
    block = result
    for part in blocks:
        block = block.setdefault(part, {})
    if value is REMOVE:
        block.pop(name, None)
    else:
        block[name] = value
    return result


def read(spec: Spec, path: str) -> Any:
    """Returns the field at `path`, or REMOVE where it is not set."""
    block: Any = spec
    for part in path.split("."):
        if part not in block:
            return REMOVE
        block = block[part]
    return block


@dataclass(frozen=True)
class Mistake:
    """One mistake: a sentence, and the fields that make it."""

    id: str
    changes: dict[str, Any]
    name: str = "mistake"

    def spec(self) -> Spec:
        """Returns the good spec with this mistake in it."""
        spec = good()
        for path, value in self.changes.items():
            spec = changed(spec, path, value)
        return spec


_DATASET = {"uri": "s3://data/alpaca.jsonl", "format": "Alpaca"}

MISTAKES = (
    Mistake("a mistyped field", {"training.learningrate": 1.0e-4}),
    Mistake("a mistyped field in a list", {"datasets": [{**_DATASET, "fromat": "Alpaca"}]}),
    Mistake("no stage", {"stage": REMOVE}),
    Mistake("a stage that does not exist", {"stage": "sft"}),
    Mistake("no model", {"model": REMOVE}),
    Mistake("a model without its place", {"model": {}}),
    Mistake("a second model source", {"model.fromRun": {"name": "earlier"}}),
    Mistake("a second stage block", {"dpo": {"beta": 0.1}}),
    Mistake("a model that is not in s3", {"model.uri": "gs://models/smollm2/"}),
    Mistake("a bucket name with capitals", {"output.uri": "s3://Runs/good/"}),
    Mistake(
        "a data set on a web server", {"datasets": [{**_DATASET, "uri": "https://x.org/a.json"}]}
    ),
    Mistake("a data set of another type", {"datasets": [{**_DATASET, "uri": "s3://data/a.xlsx"}]}),
    Mistake("no data sets", {"datasets": REMOVE}),
    Mistake("an empty list of data sets", {"datasets": []}),
    Mistake(
        "the same data set twice", {"datasets": [_DATASET, {**_DATASET, "format": "Messages"}]}
    ),
    Mistake("a data format that does not exist", {"datasets": [{**_DATASET, "format": "CSV"}]}),
    Mistake("a data set without a format", {"datasets": [{"uri": "s3://data/alpaca.jsonl"}]}),
    Mistake("nothing held out by an evaluation", {"evaluation": {"fraction": 0}}),
    Mistake("everything held out by an evaluation", {"evaluation": {"fraction": 1}}),
    Mistake("a tuning method that does not exist", {"tuning.method": "QLoRA"}),
    Mistake("adapter settings with full tuning", {"tuning": {"method": "Full", "lora": {}}}),
    Mistake("an adapter rank of 0", {"tuning.lora": {"rank": 0}}),
    Mistake(
        "a merged adapter with full tuning",
        {"tuning.method": "Full", "output.export": {"mergeAdapter": True}},
    ),
    Mistake("both epochs and maxSteps", {"training.maxSteps": 100}),
    Mistake("neither epochs nor maxSteps", {"training.epochs": REMOVE}),
    Mistake(
        "both maxSteps and maxTokens",
        {"training.epochs": REMOVE, "training.maxSteps": 9, "training.maxTokens": 10**9},
    ),
    Mistake(
        "a number of tokens where rows are trained",
        {"training.epochs": REMOVE, "training.maxTokens": 10**9},
    ),
    Mistake("no learning rate", {"training.learningRate": REMOVE}),
    Mistake("a learning rate of 0", {"training.learningRate": 0}),
    Mistake("a learning rate of 2", {"training.learningRate": 2}),
    Mistake("a learning rate in words", {"training.learningRate": "high"}),
    Mistake(
        "a global batch that does not divide",
        {"training.globalBatchSize": 10, "training.microBatchSize": 2, "workers.nodes": 2},
    ),
    Mistake(
        "a global batch below one micro-batch for each process",
        {"training.globalBatchSize": 3, "workers.processesPerNode": 8},
    ),
    Mistake("no nodes", {"workers.nodes": 0}),
    Mistake("a grace period too short to save", {"workers.terminationGracePeriodSeconds": 1}),
    Mistake("a reserved variable", {"workers.env": [{"name": "WORLD_SIZE", "value": "2"}]}),
    Mistake("a variable of llmtrain", {"workers.env": [{"name": "LLMTRAIN_RUN", "value": "x"}]}),
    Mistake("a variable name with a space", {"workers.env": [{"name": "MY VAR"}]}),
    Mistake(
        "the same variable twice",
        {"workers.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
    ),
    Mistake(
        "a quantity that is none", {"workers.resources": {"limits": {"memory": "64 gigabytes"}}}
    ),
    Mistake("a negative quantity", {"workers.resources": {"requests": {"cpu": "-1"}}}),
    Mistake(
        "a toleration that tolerates nothing known", {"workers.tolerations": [{"effect": "No"}]}
    ),
    Mistake("free fields that are a list", {"training.arguments": ["adam_beta1"]}),
    Mistake("an endpoint with a path", {"storage.endpoint": "http://minio:9000/data"}),
    Mistake("a start timeout of a second", {"startTimeoutSeconds": 1}),
    Mistake("a negative number of restarts", {"restartPolicy.maxRestarts": -1}),
)

BAD_NAMES = (
    Mistake("a name of 41 characters", {}, name="a" * 41),
    Mistake("a name that starts with a digit", {}, name="7b-sft"),
    Mistake("a name with a dot", {}, name="my.run"),
)


def everything() -> Spec:
    """Returns a spec in which every field is set."""
    return {
        "stage": "SFT",
        "model": {"uri": "s3://models/smollm2-135m/"},
        "datasets": [
            {"uri": "s3://data/a.jsonl", "format": "Alpaca"},
            {"uri": "s3://data/b.jsonl", "format": "Messages"},
        ],
        "evaluation": {"fraction": 0.1, "everySteps": 50, "batchSize": 2},
        "sft": {"packing": False, "loss": "AnswersOnly"},
        "tuning": {
            "method": "LoRA",
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "targetModules": ["q_proj", "v_proj"]},
        },
        "training": {
            "epochs": 3,
            "globalBatchSize": 32,
            "microBatchSize": 4,
            "maxLength": 512,
            "learningRate": 1.0e-4,
            "lrSchedulerType": "cosine",
            "warmupSteps": 0.1,
            "weightDecay": 0.01,
            "maxGradNorm": 1,
            "optim": "adamw_torch",
            "precision": "BF16",
            "activationCheckpointing": True,
            "loggingSteps": 5,
            "seed": 1,
            "arguments": {"adam_beta1": 0.8, "lr_scheduler_kwargs": {"num_cycles": 2}},
        },
        "checkpoint": {"everySteps": 100, "keep": 3},
        "output": {"uri": "s3://runs/everything/", "export": {"mergeAdapter": True}},
        "workers": {
            "nodes": 2,
            "processesPerNode": 2,
            "resources": {"limits": {"nvidia.com/gpu": 2}, "requests": {"memory": "64Gi"}},
            "image": "registry.example/trainer:1",
            "imagePullSecrets": [{"name": "pull"}],
            "serviceAccountName": "trainer",
            "priorityClassName": "high",
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [
                {
                    "key": "gpu",
                    "operator": "Equal",
                    "value": "yes",
                    "effect": "NoExecute",
                    "tolerationSeconds": 60,
                }
            ],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "env": [{"name": "A", "value": "1"}],
            "scratch": {"sizeLimit": "10Gi"},
            "terminationGracePeriodSeconds": 60,
            "podTemplate": {"metadata": {"annotations": {"team": "nlp"}}},
        },
        "storage": {
            "secretName": "s3-credentials",
            "endpoint": "http://minio.storage:9000",
            "region": "eu-west-1",
        },
        "restartPolicy": {"maxRestarts": 1},
        "startTimeoutSeconds": 600,
        "suspend": True,
        "retry": 1,
        "ttlSecondsAfterFinished": 3600,
    }


OTHER_VALUES: dict[str, Any] = {
    "stage": "DPO",
    "model.uri": "s3://models/other/",
    "datasets": [
        {"uri": "s3://data/b.jsonl", "format": "Messages"},
        {"uri": "s3://data/a.jsonl", "format": "Alpaca"},
    ],
    "evaluation": REMOVE,
    "evaluation.fraction": 0.2,
    "evaluation.everySteps": REMOVE,
    "evaluation.batchSize": 4,
    "sft.packing": True,
    "sft.loss": "AllTokens",
    "tuning.method": "Full",
    "tuning.lora": REMOVE,
    "tuning.lora.rank": 16,
    "tuning.lora.alpha": 32,
    "tuning.lora.dropout": 0,
    "tuning.lora.targetModules": ["v_proj", "q_proj"],
    "training.epochs": 4,
    "training.maxSteps": 100,
    "training.maxTokens": 10**9,
    "training.globalBatchSize": 64,
    "training.microBatchSize": 2,
    "training.maxLength": 1024,
    "training.learningRate": 2.0e-4,
    "training.lrSchedulerType": "linear",
    "training.warmupSteps": 10,
    "training.weightDecay": 0,
    "training.maxGradNorm": 0.5,
    "training.optim": "adafactor",
    "training.precision": "FP32",
    "training.activationCheckpointing": False,
    "training.loggingSteps": 10,
    "training.seed": 2,
    # As many fields under another name: CEL's own `==` calls two such free objects equal.
    "training.arguments": {"adam_beta2": 0.8, "lr_scheduler_kwargs": {"num_cycles": 2}},
    "checkpoint.everySteps": 200,
    "checkpoint.keep": 4,
    "output.uri": "s3://runs/other/",
    "output.export.mergeAdapter": False,
    "workers.nodes": 4,
    "workers.processesPerNode": 1,
    "workers.resources.limits": {"nvidia.com/gpu": 4},
    "workers.resources.requests": {"memory": "32Gi"},
    "workers.image": REMOVE,
    "workers.imagePullSecrets": [{"name": "other"}],
    "workers.serviceAccountName": "other",
    "workers.priorityClassName": REMOVE,
    "workers.nodeSelector": {"pool": "cpu"},
    "workers.tolerations": [],
    "workers.affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "workers.env": [{"name": "A", "value": "2"}],
    "workers.scratch.sizeLimit": "20Gi",
    "workers.terminationGracePeriodSeconds": 90,
    "workers.podTemplate": {"metadata": {"annotations": {"team": "vision"}}},
    "storage.secretName": "other",
    "storage.endpoint": REMOVE,
    "storage.region": "us-east-1",
    "startTimeoutSeconds": 900,
}
"""Another value for every field that is frozen once a run has started."""

MUTABLE_VALUES: dict[str, Any] = {
    "suspend": False,
    "retry": 2,
    "ttlSecondsAfterFinished": REMOVE,
    "restartPolicy.maxRestarts": 5,
}
"""Another value for every field that may change at any time."""
