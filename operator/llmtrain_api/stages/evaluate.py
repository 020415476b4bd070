"""`stage: Evaluate`: a model is measured, not trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import Rule
from llmtrain_api.stages.sft import ChatTemplate, Loss


def _only_when_sampling(field: str, name: str) -> Rule:
    return Rule(
        f"!has(self.{name}) || self.doSample",
        lambda predict: getattr(predict, field) is None or predict.do_sample,
        "the likeliest token is taken, so it has no effect: remove it, or set doSample: true",
        at=name,
        reason="FieldValueForbidden",
    )


class Predict(ApiModel):
    """How answers are generated, by the names of transformers' `GenerationConfig`.

    What is not set, and has no default here, is as the model's `generation_config.json` says.
    """

    rules: ClassVar = (
        _only_when_sampling("temperature", "temperature"),
        _only_when_sampling("top_p", "topP"),
        _only_when_sampling("top_k", "topK"),
    )

    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Longest answer in tokens; with `maxLength` for the prompt it must fit into the model's
    context. Default: 512 (LLaMA-Factory: 1024)."""

    do_sample: bool = False
    """Draw tokens by chance, instead of taking the likeliest. Default: false, whatever the model's
    own configuration says (LLaMA-Factory: true)."""

    temperature: Annotated[float, Field(gt=0, le=100)] | None = None
    """With `doSample`: above 1 makes unlikely tokens likelier, below 1 rarer."""

    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `doSample`: draw among the likeliest tokens that make up this probability."""

    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """With `doSample`: draw among this many of the likeliest tokens; 0 for all."""

    num_beams: Annotated[int, Field(ge=1, le=64)] = 1
    """Beams of a beam search. Default: 1, none."""

    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    """Above 1 makes tokens rarer that were there before. Default: the model's, mostly 1."""


class Evaluate(ApiModel):
    """Evaluation alone, `stage: Evaluate`."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    """Rows per process and forward pass, transformers' `per_device_eval_batch_size`. Default: 1
    (transformers: 8)."""

    max_length: Annotated[int, Field(ge=8, le=10_000_000)] = 1024
    """Longest row in tokens. Longer rows are cut at the end, and left out where no token is left
    that the loss falls on; running text is cut into pieces. Prompts are never cut: where one has
    more tokens, no answer is generated. Default: 1024, as in `training.maxLength`."""

    loss: Loss = "AnswersOnly"
    """Which tokens are measured: the assistant's answers and completions, end of turn included;
    only the last of them; or every token. Of running text it is every token."""

    chat_template: ChatTemplate | None = None
    """How conversations become text, as `sft.chatTemplate`. Default: the model's own."""

    precision: Literal["Auto", "BF16", "FP32"] = "Auto"
    """Number format of the weights and the forward pass. `Auto`: bf16 where the device computes in
    it, else fp32. What was chosen is in `status.resolved.precision`."""

    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 42
    """Seed of `predict.doSample`. Default: 42, as in transformers."""

    predict: Predict | None = None
    """Also generate the last answer of each row and hold it against the one that is there. Default:
    only the loss."""
