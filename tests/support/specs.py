"""Good specs of every stage, for pydantic and the cluster."""

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
