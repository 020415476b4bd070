"""Good specs of every stage, and another value for every field, for pydantic and the cluster."""

from __future__ import annotations

import copy
from typing import Any, get_args

from llmtrain_api.run import Stage

Spec = dict[str, Any]

REMOVE = object()
"""Stands for a field to take away."""

STAGES: tuple[str, ...] = get_args(Stage)
KINDS = (*STAGES, "Chain")
"""The kinds of `everything`: every stage, and a run that starts from another one's tokenizer."""

_MODEL: Spec = {
    "model": {"uri": "s3://models/smollm2-135m/"},
    "tuning": {"method": "LoRA"},
    "training": {"epochs": 1, "globalBatchSize": 8, "learningRate": 2.0e-4},
}
_GOOD: dict[str, Spec] = {
    "Tokenizer": {
        "datasets": [{"uri": "s3://data/books.jsonl", "format": "Text"}],
        "tokenizerTraining": {"vocabSize": 32_000},
    },
    "Pretrain": {
        "architecture": {
            "family": "llama",
            "hiddenSize": 64,
            "numHiddenLayers": 2,
            "numAttentionHeads": 4,
        },
        "tokenizer": {"uri": "s3://runs/tokenizer/model/"},
        "datasets": [{"uri": "s3://data/books.jsonl", "format": "Text"}],
        "training": {"maxSteps": 100, "globalBatchSize": 8, "learningRate": 1.0e-3},
    },
    "SFT": {**_MODEL, "datasets": [{"uri": "s3://data/alpaca.jsonl", "format": "Alpaca"}]},
    "DPO": {**_MODEL, "datasets": [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}]},
    "KTO": {
        **_MODEL,
        "datasets": [{"uri": "s3://data/marks.jsonl", "format": "KTO"}],
        "training": {**_MODEL["training"], "microBatchSize": 2},
    },
    "Reward": {**_MODEL, "datasets": [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}]},
    "Custom": {"custom": {"command": ["python3", "train.py"]}},
    "Evaluate": {
        "model": {"uri": "s3://models/smollm2-135m/"},
        "datasets": [{"uri": "s3://data/alpaca.jsonl", "format": "Alpaca"}],
    },
}


def good(stage: str = "SFT") -> Spec:
    """Returns the smallest useful spec of a stage."""
    return copy.deepcopy({"stage": stage, **_GOOD[stage], "output": {"uri": "s3://runs/good/"}})


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


_TRAINING: Spec = {
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
    "deterministic": True,
    "arguments": {"adam_beta1": 0.8, "lr_scheduler_kwargs": {"num_cycles": 2}},
}
_FROM_MODEL: Spec = {
    "model": {"uri": "s3://models/smollm2-135m/"},
    "tuning": {
        "method": "LoRA",
        "lora": {"rank": 8, "alpha": 16, "dropout": 0, "targetModules": ["q_proj", "v_proj"]},
    },
    "training": {"epochs": 3, **_TRAINING},
    "output": {"uri": "s3://runs/everything/", "export": {"mergeAdapter": True}},
}
_WORKERS: Spec = {
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
}
_AROUND: Spec = {
    "evaluation": {
        "fraction": 0.1,
        "groupBy": "conversation",
        "everySteps": 50,
        "atStart": True,
        "batchSize": 2,
        "metricForBestModel": "loss",
        "earlyStoppingPatience": 5,
        "loadBestModelAtEnd": True,
    },
    "checkpoint": {"everySteps": 100, "keep": 3},
    "output": {"uri": "s3://runs/everything/"},
    "workers": _WORKERS,
    "storage": {
        "secretName": "s3-credentials",
        "endpoint": "http://minio.storage:9000",
        "region": "eu-west-1",
    },
    "tracking": {
        "mlflow": {
            "trackingUri": "http://mlflow.mlflow:5000",
            "experiment": "smollm2",
            "secretName": "mlflow",
        },
        "wandb": {
            "project": "smollm2",
            "entity": "nlp",
            "baseUrl": "https://wandb.example",
            "secretName": "wandb",
        },
    },
    "restartPolicy": {"maxRestarts": 1},
    "startTimeoutSeconds": 600,
    "suspend": True,
    "retry": 1,
    "ttlSecondsAfterFinished": 3600,
}
_EVERYTHING: dict[str, Spec] = {
    "SFT": {
        **changed(_FROM_MODEL, "tuning.lora.dropout", 0.1),
        "training": {
            "epochs": 3,
            **_TRAINING,
            "mixing": "AllExhausted",
            "groupByLength": False,
        },
        "datasets": [
            {"uri": "s3://data/a.jsonl", "format": "Alpaca", "weight": 0.7},
            {"uri": "s3://data/b.jsonl", "format": "Messages", "weight": 0.3},
        ],
        "sft": {"packing": False, "loss": "AnswersOnly", "chatTemplate": "chatml"},
        "prepare": {
            "cacheUri": "s3://data/tokens/",
            "timeoutSeconds": 600,
            "job": {
                "resources": {"limits": {"cpu": 8}, "requests": {"memory": "8Gi"}},
                "nodeSelector": {"pool": "cpu"},
                "tolerations": [{"key": "cpu"}],
            },
        },
    },
    "Tokenizer": {
        "evaluation": {"fraction": 0.1},
        "workers": {**_WORKERS, "nodes": 1, "processesPerNode": 1},
        "datasets": [{"uri": "s3://data/books.jsonl", "format": "Text"}],
        "tokenizerTraining": {
            "algorithm": "WordPiece",
            "vocabSize": 8000,
            "minFrequency": 2,
            "specialTokens": {
                "bosToken": "<s>",
                "eosToken": "</s>",
                "padToken": "<pad>",
                "unkToken": "<unk>",
                "extra": ["<tool>"],
            },
            "chatTemplate": "None",
        },
    },
    "Pretrain": {
        "architecture": {
            "family": "llama",
            "hiddenSize": 64,
            "numHiddenLayers": 2,
            "numAttentionHeads": 4,
            "numKeyValueHeads": 2,
            "intermediateSize": 256,
            "maxPositionEmbeddings": 1024,
            "tieWordEmbeddings": True,
        },
        "tokenizer": {"uri": "s3://runs/tokenizer/model/"},
        "datasets": [
            {"uri": "s3://data/books.jsonl", "format": "Text", "weight": 0.7},
            {"uri": "s3://data/web.txt", "format": "Text", "weight": 0.3},
        ],
        "pretrain": {"isolateDocuments": False, "appendEosToken": False},
        "training": {"maxTokens": 1_000_000, **_TRAINING},
    },
    "DPO": {
        **_FROM_MODEL,
        "datasets": [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}],
        "dpo": {
            "beta": 0.2,
            "lossType": ["sigmoid", "robust"],
            "lossWeights": [1, 0.5],
            "labelSmoothing": 0.1,
            "referenceModel": {"uri": "s3://models/reference/"},
            "precomputeRefLogProbs": True,
            "disableDropout": False,
        },
    },
    "KTO": {
        **_FROM_MODEL,
        "datasets": [{"uri": "s3://data/marks.jsonl", "format": "KTO"}],
        "training": {"maxSteps": 300, **_TRAINING},
        "model": {"fromRun": {"name": "sft", "checkpoint": 400}},
        "kto": {
            "lossType": "apo_zero_unpaired",
            "beta": 0.2,
            "desirableWeight": 1.5,
            "undesirableWeight": 0.5,
            "referenceModel": {"uri": "s3://models/reference/"},
            "precomputeRefLogProbs": True,
            "disableDropout": False,
        },
    },
    "Reward": {
        **_FROM_MODEL,
        "datasets": [{"uri": "s3://data/pairs.jsonl", "format": "Preference"}],
        "reward": {"centerRewardsCoefficient": 0.01, "disableDropout": False},
    },
    "Custom": {
        "evaluation": REMOVE,
        "model": {"uri": "s3://models/smollm2-135m/"},
        "datasets": [{"uri": "s3://data/shards/", "format": "Any"}],
        "workers": {**_WORKERS, "processesPerNode": 1},
        "custom": {
            "command": ["python3", "train.py"],
            "args": ["--output_dir", "$(LLMTRAIN_OUTPUT_DIR)"],
            "launcher": "None",
        },
    },
    "Evaluate": {
        "model": {"uri": "s3://models/smollm2-135m/", "adapterUri": "s3://runs/sft/adapter/"},
        "datasets": [{"uri": "s3://data/alpaca.jsonl", "format": "Alpaca"}],
        "evaluation": REMOVE,
        "evaluate": {
            "batchSize": 4,
            "maxLength": 512,
            "loss": "AllTokens",
            "chatTemplate": "chatml",
            "precision": "BF16",
            "seed": 1,
            "predict": {
                "maxNewTokens": 64,
                "doSample": True,
                "temperature": 0.7,
                "topP": 0.9,
                "topK": 40,
                "numBeams": 2,
                "repetitionPenalty": 1.1,
            },
        },
    },
}


_EVERYTHING["Chain"] = {
    **_EVERYTHING["Pretrain"],
    "stage": "Pretrain",
    "tokenizer": {"fromRun": {"name": "tokenizer"}},
}


def everything(kind: str = "SFT") -> Spec:
    """Returns a spec of one of `KINDS` in which every field is set that it takes.

    Fields that exclude each other are set in different kinds.
    """
    spec = {"stage": kind, **_AROUND, **_EVERYTHING[kind]}
    return copy.deepcopy({name: block for name, block in spec.items() if block is not REMOVE})


def holding(path: str) -> Spec:
    """Returns `everything` of the first kind that sets the field at `path`, SFT before others."""
    specs = [everything(kind) for kind in ("SFT", *KINDS)]
    return next(spec for spec in specs if read(spec, path) is not REMOVE)


OTHER_VALUES: dict[str, Any] = {
    "stage": "DPO",
    "model": REMOVE,
    "model.uri": "s3://models/other/",
    "model.fromRun": REMOVE,
    "model.fromRun.name": "other",
    "model.fromRun.checkpoint": "Final",
    "model.adapterUri": REMOVE,
    "architecture": REMOVE,
    "architecture.family": "qwen2",
    "architecture.hiddenSize": 128,
    "architecture.numHiddenLayers": 4,
    "architecture.numAttentionHeads": 8,
    "architecture.numKeyValueHeads": REMOVE,
    "architecture.intermediateSize": 512,
    "architecture.maxPositionEmbeddings": 2048,
    "architecture.tieWordEmbeddings": False,
    "tokenizer": REMOVE,
    "tokenizer.uri": "s3://runs/other/model/",
    "tokenizer.fromRun": REMOVE,
    "tokenizer.fromRun.name": "other",
    "datasets": [
        {"uri": "s3://data/b.jsonl", "format": "Messages", "weight": 0.3},
        {"uri": "s3://data/a.jsonl", "format": "Alpaca", "weight": 0.7},
    ],
    "evaluation": REMOVE,
    "evaluation.fraction": 0.2,
    "evaluation.groupBy": REMOVE,
    "evaluation.everySteps": 100,
    "evaluation.atStart": False,
    "evaluation.batchSize": 4,
    "evaluation.metricForBestModel": "perplexity",
    "evaluation.earlyStoppingPatience": REMOVE,
    "evaluation.loadBestModelAtEnd": False,
    "tokenizerTraining": REMOVE,
    "tokenizerTraining.algorithm": "BPE",
    "tokenizerTraining.vocabSize": 16_000,
    "tokenizerTraining.minFrequency": 0,
    "tokenizerTraining.specialTokens.bosToken": REMOVE,
    "tokenizerTraining.specialTokens.eosToken": "<eos>",
    "tokenizerTraining.specialTokens.padToken": "<fill>",
    "tokenizerTraining.specialTokens.unkToken": "<unknown>",
    "tokenizerTraining.specialTokens.extra": ["<call>"],
    "tokenizerTraining.chatTemplate": "ChatML",
    "pretrain": REMOVE,
    "pretrain.isolateDocuments": True,
    "pretrain.appendEosToken": True,
    "sft": REMOVE,
    "sft.packing": True,
    "sft.chatTemplate": "llama3",
    "sft.loss": "AllTokens",
    "dpo": REMOVE,
    "dpo.beta": 0.1,
    "dpo.lossType": ["robust", "sigmoid"],
    "dpo.lossWeights": [0.5, 1],
    "dpo.labelSmoothing": 0.2,
    "dpo.referenceModel": REMOVE,
    "dpo.referenceModel.uri": "s3://models/other/",
    "dpo.precomputeRefLogProbs": False,
    "dpo.disableDropout": True,
    "kto": REMOVE,
    "kto.lossType": "kto",
    "kto.beta": 0.1,
    "kto.desirableWeight": 1,
    "kto.undesirableWeight": 1,
    "kto.referenceModel": REMOVE,
    "kto.referenceModel.uri": "s3://models/other/",
    "kto.precomputeRefLogProbs": False,
    "kto.disableDropout": True,
    "reward": REMOVE,
    "reward.centerRewardsCoefficient": 0.02,
    "reward.disableDropout": True,
    "custom": REMOVE,
    "custom.command": ["python3", "other.py"],
    "custom.args": ["--output_dir", "/tmp"],
    "custom.launcher": "Torchrun",
    "prepare": REMOVE,
    "prepare.cacheUri": REMOVE,
    "prepare.timeoutSeconds": 900,
    "prepare.job": REMOVE,
    "prepare.job.resources.limits": {"cpu": 16},
    "prepare.job.resources.requests": {"memory": "16Gi"},
    "prepare.job.nodeSelector": {"pool": "other"},
    "prepare.job.tolerations": [],
    "evaluate": REMOVE,
    "evaluate.batchSize": 8,
    "evaluate.maxLength": 256,
    "evaluate.loss": "LastAnswerOnly",
    "evaluate.chatTemplate": "llama3",
    "evaluate.precision": "FP32",
    "evaluate.seed": 2,
    "evaluate.predict": REMOVE,
    "evaluate.predict.maxNewTokens": 32,
    "evaluate.predict.doSample": False,
    "evaluate.predict.temperature": 0.8,
    "evaluate.predict.topP": 0.8,
    "evaluate.predict.topK": 20,
    "evaluate.predict.numBeams": 4,
    "evaluate.predict.repetitionPenalty": 1.2,
    "tuning": REMOVE,
    "tuning.method": "Full",
    "tuning.lora": REMOVE,
    "tuning.lora.rank": 16,
    "tuning.lora.alpha": 32,
    "tuning.lora.dropout": 0,
    "tuning.lora.targetModules": ["v_proj", "q_proj"],
    "training": REMOVE,
    "training.epochs": 4,
    "training.maxSteps": 100,
    "training.maxTokens": 10**9,
    "training.globalBatchSize": 64,
    "training.microBatchSize": 2,
    "training.maxLength": 1024,
    "training.mixing": "FirstExhausted",
    "training.groupByLength": True,
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
    "training.deterministic": False,
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
    "tracking": REMOVE,
    "tracking.mlflow": REMOVE,
    "tracking.mlflow.trackingUri": "http://other:5000",
    "tracking.mlflow.experiment": "other",
    "tracking.mlflow.secretName": REMOVE,
    "tracking.wandb": REMOVE,
    "tracking.wandb.project": "other",
    "tracking.wandb.entity": REMOVE,
    "tracking.wandb.baseUrl": "https://other.example",
    "tracking.wandb.secretName": "other",
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
