"""Specs that are refused at `kubectl apply`, each with one mistake in a good spec.

The unit tests hold that pydantic refuses it, the end-to-end tests that the API server does, with
the message in `golden/refused_at_apply.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specs import REMOVE, Spec, changed, everything, good


@dataclass(frozen=True)
class Mistake:
    """One mistake: a sentence, and the fields that make it."""

    id: str
    changes: dict[str, Any]
    stage: str = "SFT"
    name: str = "mistake"

    def spec(self) -> Spec:
        """Returns the good spec of the stage with this mistake in it."""
        spec = good(self.stage)
        for path, value in self.changes.items():
            spec = changed(spec, path, value)
        return spec


_DATASET = {"uri": "s3://data/alpaca.jsonl", "format": "Alpaca"}

_MODEL = {"uri": "s3://models/smollm2-135m/"}
_ARCHITECTURE = good("Pretrain")["architecture"]
_TOKENIZER = {"uri": "s3://runs/tokenizer/model/"}

_OF_ANY_STAGE = (
    Mistake("a mistyped field", {"training.learningrate": 1.0e-4}),
    Mistake("a mistyped field in a list", {"datasets": [{**_DATASET, "fromat": "Alpaca"}]}),
    Mistake("no stage", {"stage": REMOVE}),
    Mistake("a stage that does not exist", {"stage": "sft"}),
    Mistake("no model", {"model": REMOVE}),
    Mistake("a model without its place", {"model": {}}),
    Mistake("a second model source", {"model.fromRun": {"name": "earlier"}}),
    Mistake("a model from a run without a name", {"model": {"fromRun": {"checkpoint": 400}}}),
    Mistake("a checkpoint of step 0", {"model": {"fromRun": {"name": "a", "checkpoint": 0}}}),
    Mistake(
        "the best of its checkpoints, which nothing records",
        {"model": {"fromRun": {"name": "a", "checkpoint": "Best"}}},
    ),
    Mistake("a run's name of 41 letters", {"model": {"fromRun": {"name": "a" * 41}}}),
    Mistake(
        "data from a run", {"datasets": [{"fromRun": {"name": "earlier"}, "format": "Alpaca"}]}
    ),
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
    Mistake(
        "a column of another format", {"datasets": [{**_DATASET, "columns": {"messages": "chat"}}]}
    ),
    Mistake(
        "roles where no turn names its speaker",
        {"datasets": [{**_DATASET, "roles": {"user": "human"}}]},
    ),
    Mistake(
        "a call as a turn of its own",
        {"datasets": [{**_DATASET, "format": "Messages", "roles": {"toolCall": "call"}}]},
    ),
    Mistake("a weight of 0", {"datasets": [{**_DATASET, "weight": 0}]}),
    Mistake(
        "a weight for one data set of two",
        {"datasets": [{**_DATASET, "weight": 2}, {**_DATASET, "uri": "s3://data/b.jsonl"}]},
    ),
    Mistake(
        "weights where all text is read",
        {"datasets": [{"uri": "s3://data/a.txt", "format": "Text", "weight": 2}]},
        stage="Tokenizer",
    ),
    Mistake("mixing without weights", {"training.mixing": "FirstExhausted"}),
    Mistake("mixing where all text is read", {"training.mixing": "AllExhausted"}, stage="Pretrain"),
    Mistake("a chat template that has no name", {"sft": {"chatTemplate": "ChatML"}}),
    Mistake("nothing held out by an evaluation", {"evaluation": {"fraction": 0}}),
    Mistake("everything held out by an evaluation", {"evaluation": {"fraction": 1}}),
    Mistake(
        "the best model of a run that is evaluated once",
        {"evaluation": {"fraction": 0.1, "metricForBestModel": "loss"}},
    ),
    Mistake(
        "patience without a metric",
        {"evaluation": {"fraction": 0.1, "everySteps": 5, "earlyStoppingPatience": 2}},
    ),
    Mistake(
        "the best model without a metric",
        {"evaluation": {"fraction": 0.1, "everySteps": 5, "loadBestModelAtEnd": True}},
    ),
    *(
        Mistake(
            f"a metric that {stage} does not have",
            {"evaluation": {"fraction": 0.1, "everySteps": 5, "metricForBestModel": metric}},
            stage,
        )
        for stage, metric in (
            ("Pretrain", "rewards/margins"),
            ("SFT", "accuracy"),
            ("DPO", "perplexity"),
            ("KTO", "rewards/accuracies"),
            ("Reward", "mean_token_accuracy"),
        )
    ),
    Mistake("groups of lengths in pretraining", {"training.groupByLength": True}, "Pretrain"),
    Mistake(
        "groups of lengths of packed rows", {"training.groupByLength": True, "sft.packing": True}
    ),
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
    Mistake("tracking without a service", {"tracking": {}}),
    Mistake(
        "a tracking server that is a path",
        {"tracking": {"mlflow": {"trackingUri": "/mlruns", "experiment": "x"}}},
    ),
    Mistake("a project without its key", {"tracking": {"wandb": {"project": "x"}}}),
    Mistake("a start timeout of a second", {"startTimeoutSeconds": 1}),
    Mistake("a negative number of restarts", {"restartPolicy.maxRestarts": -1}),
    Mistake("a cache that is not in s3", {"prepare": {"cacheUri": "/mnt/cache/"}}),
    Mistake("tokens within a second", {"prepare": {"timeoutSeconds": 1}}),
)

_OF_A_SOURCE = (
    Mistake("alignment of a new model", {"model": REMOVE, "architecture": _ARCHITECTURE}, "DPO"),
    Mistake(
        "pretraining without a model", {"architecture": REMOVE, "tokenizer": REMOVE}, "Pretrain"
    ),
    Mistake("both a model and an architecture", {"model": _MODEL}, "Pretrain"),
    Mistake(
        "an architecture for a tokenizer",
        {"architecture": _ARCHITECTURE, "tokenizer": _TOKENIZER},
        "Tokenizer",
    ),
    Mistake("a tokenizer without its place", {"tokenizer": {}}, "Pretrain"),
    Mistake(
        "a checkpoint of a tokenizer",
        {"tokenizer": {"fromRun": {"name": "tokenizer", "checkpoint": "Final"}}},
        "Pretrain",
    ),
    Mistake("an architecture without a tokenizer", {"tokenizer": REMOVE}, "Pretrain"),
    Mistake("a tokenizer beside a model", {"tokenizer": _TOKENIZER}),
    Mistake("a context shorter than the rows", {"training.maxLength": 4096}, "Pretrain"),
    Mistake("a width that the heads do not divide", {"architecture.hiddenSize": 66}, "Pretrain"),
    Mistake("heads of odd width", {"architecture.hiddenSize": 60}, "Pretrain"),
    Mistake(
        "key heads that do not divide the heads", {"architecture.numKeyValueHeads": 3}, "Pretrain"
    ),
    Mistake(
        "key heads for gpt2",
        {"architecture.family": "gpt2", "architecture.numKeyValueHeads": 2},
        "Pretrain",
    ),
    Mistake("a family that does not exist", {"architecture.family": "bert"}, "Pretrain"),
    Mistake("adapters for a new model", {"tuning": {"method": "LoRA"}}, "Pretrain"),
)

_OF_A_BLOCK = (
    Mistake("a tokenizer without its size", {"tokenizerTraining": REMOVE}, "Tokenizer"),
    Mistake("prepared tokens for a tokenizer", {"prepare": {}}, "Tokenizer"),
    Mistake("a vocabulary below 300", {"tokenizerTraining.vocabSize": 299}, "Tokenizer"),
    Mistake(
        "pairs to count where none are merged",
        {"tokenizerTraining.algorithm": "Unigram", "tokenizerTraining.minFrequency": 2},
        "Tokenizer",
    ),
    Mistake("a model for a tokenizer", {"model": _MODEL}, "Tokenizer"),
    Mistake("tuning for a tokenizer", {"tuning": {"method": "Full"}}, "Tokenizer"),
    Mistake("training for a tokenizer", {"training": good()["training"]}, "Tokenizer"),
    Mistake(
        "a tokenizer that is evaluated on the way",
        {"evaluation": {"fraction": 0.1, "everySteps": 50}},
        "Tokenizer",
    ),
    Mistake(
        "a tokenizer that is evaluated in batches",
        {"evaluation": {"fraction": 0.1, "batchSize": 2}},
        "Tokenizer",
    ),
    Mistake(
        "a tokenizer that is evaluated at the start",
        {"evaluation": {"fraction": 0.1, "atStart": True}},
        "Tokenizer",
    ),
    Mistake("a tokenizer on two nodes", {"workers.nodes": 2}, "Tokenizer"),
    Mistake("no training", {"training": REMOVE}),
    Mistake("no tuning", {"tuning": REMOVE}),
    Mistake("an end in tokens with SFT", {"training.epochs": REMOVE, "training.maxTokens": 10**6}),
    Mistake("both maxTokens and maxSteps", {"training.maxTokens": 10**6}, "Pretrain"),
    Mistake("a beta of 0", {"dpo": {"beta": 0}}, "DPO"),
    Mistake("a loss that TRL does not have", {"dpo": {"lossType": ["simpo"]}}, "DPO"),
    Mistake("no losses", {"dpo": {"lossType": []}}, "DPO"),
    Mistake(
        "fewer weights than losses",
        {"dpo": {"lossType": ["sigmoid", "sft"], "lossWeights": [1]}},
        "DPO",
    ),
    Mistake("labels smoothed by half", {"dpo": {"labelSmoothing": 0.5}}, "DPO"),
    Mistake("a negative weight", {"kto": {"undesirableWeight": -1}}, "KTO"),
    Mistake("a loss of pairs for single answers", {"kto": {"lossType": "sigmoid"}}, "KTO"),
    Mistake("nothing to hold an answer against", {"training.microBatchSize": 1}, "KTO"),
    Mistake("exo_pair without label smoothing", {"dpo": {"lossType": ["exo_pair"]}}, "DPO"),
    Mistake("label smoothing that no loss reads", {"dpo": {"labelSmoothing": 0.1}}, "DPO"),
    Mistake("dropout that DPO leaves out", {"tuning.lora": {"dropout": 0.1}}, "DPO"),
    Mistake(
        "dropout that KTO leaves out",
        {"tuning.lora": {"dropout": 0.1}, "kto": {"beta": 0.2}},
        "KTO",
    ),
    Mistake("dropout that Reward leaves out", {"tuning.lora": {"dropout": 0.1}}, "Reward"),
)

_OF_A_COMMAND = (
    Mistake("a custom run without a command", {"custom": REMOVE}, "Custom"),
    Mistake("an empty command", {"custom.command": []}, "Custom"),
    Mistake("tuning of a command", {"tuning": {"method": "Full"}}, "Custom"),
    Mistake("training of a command", {"training": good()["training"]}, "Custom"),
    Mistake("an evaluation of a command", {"evaluation": {"fraction": 0.1}}, "Custom"),
    Mistake(
        "rows to count where none are read",
        {"datasets": [{"uri": "s3://data/shards/", "format": "Any", "maxSamples": 9}]},
        "Custom",
    ),
    Mistake(
        "two processes of a command without torchrun",
        {"custom.launcher": "None", "workers.processesPerNode": 2},
        "Custom",
    ),
    Mistake("a launcher that does not exist", {"custom.launcher": "mpirun"}, "Custom"),
)

_OF_AN_EVALUATION = (
    Mistake(
        "training where a model is only measured", {"training": good()["training"]}, "Evaluate"
    ),
    Mistake("tuning where a model is only measured", {"tuning": {"method": "LoRA"}}, "Evaluate"),
    Mistake("rows held out where all are measured", {"evaluation": {"fraction": 0.1}}, "Evaluate"),
    Mistake(
        "a merged adapter where nothing is trained",
        {"output.export": {"mergeAdapter": True}},
        "Evaluate",
    ),
    Mistake("an adapter to train on", {"model.adapterUri": "s3://runs/sft/adapter/"}),
    Mistake(
        "answers to running text",
        {
            "datasets": [{"uri": "s3://data/books.jsonl", "format": "Text"}],
            "evaluate": {"predict": {}},
        },
        "Evaluate",
    ),
    Mistake("no new tokens", {"evaluate": {"predict": {"maxNewTokens": 0}}}, "Evaluate"),
    *(
        Mistake(f"{name} without sampling", {"evaluate": {"predict": {name: 1}}}, "Evaluate")
        for name in ("temperature", "topP", "topK")
    ),
)

_WRONG_BLOCKS = tuple(
    Mistake(f"{block} with stage {stage}", {block: everything(owner)[block]}, stage)
    for owner, block, stage in (
        ("Tokenizer", "tokenizerTraining", "SFT"),
        ("Pretrain", "pretrain", "DPO"),
        ("SFT", "sft", "Reward"),
        ("DPO", "dpo", "SFT"),
        ("KTO", "kto", "DPO"),
        ("Reward", "reward", "KTO"),
        ("Custom", "custom", "SFT"),
        ("Evaluate", "evaluate", "SFT"),
    )
)
_WRONG_FORMATS = tuple(
    Mistake(
        f"rows of {format_} with stage {stage}",
        {"datasets": [{"uri": "s3://data/rows.jsonl", "format": format_}]},
        stage,
    )
    for stage, format_ in (
        ("Tokenizer", "Messages"),
        ("Pretrain", "Alpaca"),
        ("SFT", "Preference"),
        ("DPO", "KTO"),
        ("KTO", "Preference"),
        ("Reward", "Messages"),
        ("Custom", "Text"),
        ("Evaluate", "Preference"),
    )
)

MISTAKES = (
    *_OF_ANY_STAGE,
    *_OF_A_SOURCE,
    *_OF_A_BLOCK,
    *_OF_A_COMMAND,
    *_OF_AN_EVALUATION,
    *_WRONG_BLOCKS,
    *_WRONG_FORMATS,
)

BAD_NAMES = (
    Mistake("a name of 41 characters", {}, name="a" * 41),
    Mistake("a name that starts with a digit", {}, name="7b-sft"),
    Mistake("a name with a dot", {}, name="my.run"),
)

FROM_ITSELF = (
    Mistake("a model from the run itself", {"model": {"fromRun": {"name": "mistake"}}}),
    Mistake(
        "a tokenizer from the run itself",
        {"tokenizer": {"fromRun": {"name": "mistake"}}},
        "Pretrain",
    ),
)
"""Mistakes of a spec together with the name of its run."""
