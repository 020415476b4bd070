"""The model card: what a model was made from, how, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from llmtrain_api.run import RunSpec
from llmtrain_api.stages.preference import DPO, KTO
from llmtrain_trainer.data.tokens import Account

Kind = Literal["adapter", "model"]

_GOALS = {
    "Pretrain": "pretraining",
    "SFT": "supervised fine-tuning",
    "DPO": "direct preference optimisation",
    "KTO": "Kahneman-Tversky optimisation",
    "Reward": "a reward model",
}
_WHOLE_MODELS = {
    "Pretrain": "A model whose pretraining was continued",
    "SFT": "A model with all weights fine-tuned under supervision",
    "DPO": "A model aligned by direct preference optimisation of all weights",
    "KTO": "A model aligned by Kahneman-Tversky optimisation of all weights",
    "Reward": "A reward model with all weights trained",
}
_DROPPED = {
    "Pretrain": "Dropped documents have no text; every token of the others is trained.",
    "Reward": "Dropped pairs have an answer that is longer than `maxLength`.",
}


def write_card(
    name: str,
    kind: Kind,
    spec: RunSpec,
    account: Account,
    results: Mapping[str, Any],
    versions: Mapping[str, str],
    lineage: str = "",
    curves: Sequence[str] = (),
) -> str:
    """Returns the text of `README.md` in a final folder.

    Args:
        name: The run's name.
        kind: Whether the folder holds a LoRA adapter or a whole model.
        spec: The run's spec.
        account: What became of the rows.
        results: What `all_results.json` holds.
        versions: Versions of the libraries that trained it.
        lineage: What the model comes from, in Markdown.
        curves: Names of images beside the card.
    """
    parts = [
        _front_matter(kind, spec),
        f"# {name}\n",
        f"{_what(kind, spec)}, trained from {_origin(spec)} by llmtrain.{_reference(spec)}\n",
        "## Data\n\n" + _data(account, spec),
        *(["## Lineage\n\n" + lineage] if lineage else []),
        "## Training\n\n" + _arguments(spec),
        *(["## Curves\n\n" + "".join(f"![{each}]({each})\n" for each in curves)] if curves else []),
        "## Results\n\n" + _results(results),
        "## How to load it\n\n" + _usage(kind, spec),
        "## Versions\n\n"
        + ", ".join(f"{library} {version}" for library, version in versions.items())
        + "\n",
    ]
    return "\n".join(parts)


def _front_matter(kind: Kind, spec: RunSpec) -> str:
    fields = {
        "library_name": "peft" if kind == "adapter" else "transformers",
        "pipeline_tag": "text-classification" if spec.stage == "Reward" else "text-generation",
        "tags": ["llmtrain", spec.stage.lower(), *(["lora"] if kind == "adapter" else [])],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _origin(spec: RunSpec) -> str:
    if spec.architecture is None:
        return f"`{spec.source_uri}`"
    return f"random weights with the tokenizer of `{spec.source_uri}`"


def _what(kind: Kind, spec: RunSpec) -> str:
    if spec.architecture is not None:
        return f"A new model of the family {spec.architecture.family}"
    if kind == "adapter":
        return f"A LoRA adapter for {_GOALS.get(spec.stage, spec.stage)}"
    if spec.method == "LoRA":
        return "The base model with a LoRA adapter merged in"
    return _WHOLE_MODELS[spec.stage]


def _reference(spec: RunSpec) -> str:
    """Returns a sentence on the reference model, for the stages that have one."""
    if spec.stage not in ("DPO", "KTO"):
        return ""
    settings: DPO | KTO = (spec.dpo or DPO()) if spec.stage == "DPO" else (spec.kto or KTO())
    named = settings.reference_model
    uri = named.uri if named is not None else spec.source_uri
    return f" The reference model was `{uri}`."


def _data(account: Account, spec: RunSpec) -> str:
    lines = [
        "| dataset | rows | trained | held out | dropped | truncated | tokens | SHA-256 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{dataset.uri}` | {dataset.rows} | {dataset.train} | {dataset.evaluation}"
        f" | {dataset.dropped} | {dataset.truncated} | {dataset.tokens} | `{dataset.sha256}` |"
        for dataset in account.datasets
    ]
    note = _DROPPED.get(
        spec.stage,
        "Dropped rows have no trained token within `maxLength`; truncated rows were cut there.",
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def _arguments(spec: RunSpec) -> str:
    blocks = spec.to_dict()
    own = ("pretrain", "sft", "dpo", "kto", "reward")
    names = ("architecture", "tuning", *own, "training")
    chosen: dict[str, Any] = {name: blocks[name] for name in names if name in blocks}
    chosen["processes"] = spec.world_size
    chosen["gradientAccumulationSteps"] = spec.gradient_accumulation_steps
    return f"```yaml\n{yaml.safe_dump(chosen, sort_keys=False)}```\n"


def _results(results: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in results.items():
        if value is not None:
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"


def _usage(kind: Kind, spec: RunSpec) -> str:
    reward = spec.stage == "Reward"
    auto = "AutoModelForSequenceClassification" if reward else "AutoModelForCausalLM"
    more = ", num_labels=1" if reward else ""
    head = f"from transformers import {auto}, AutoTokenizer\n\n"
    end = 'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n'
    if kind == "model":
        body = f'{head}model = {auto}.from_pretrained("path/to/this/folder")\n{end}'
    else:
        body = (
            f"from peft import PeftModel\n{head}"
            f"# A local copy of {spec.source_uri}\n"
            f'base = {auto}.from_pretrained("path/to/the/base/model"{more})\n'
            f'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n{end}'
        )
    if reward:
        body += (
            "model.config.pad_token_id = tokenizer.pad_token_id\n"
            'chat = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]\n'
            'inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)\n'
            "reward = model(**inputs).logits[0, 0]\n"
        )
    return f"```python\n{body}```\n"
