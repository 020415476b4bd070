"""`stage: Pretrain`, and the architecture of a model that starts from nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel, Uri
from llmtrain_api.markers import Rule
from llmtrain_api.references import ONE_SOURCE, FromRun


class Architecture(ApiModel):
    """A new model: its family and sizes, by the names of transformers' configurations."""

    rules: ClassVar = (
        Rule(
            "self.numAttentionHeads < 1 || self.hiddenSize % self.numAttentionHeads == 0",
            lambda it: it.hidden_size % it.num_attention_heads == 0,
            "must be a multiple of numAttentionHeads",
            at="hiddenSize",
        ),
        Rule(
            "!has(self.numKeyValueHeads) || self.numKeyValueHeads < 1"
            " || self.numAttentionHeads % self.numKeyValueHeads == 0",
            lambda it: (
                it.num_key_value_heads is None
                or it.num_attention_heads % it.num_key_value_heads == 0
            ),
            "use a divisor of numAttentionHeads",
            at="numKeyValueHeads",
        ),
        Rule(
            "!has(self.numKeyValueHeads) || self.family != 'gpt2'",
            lambda it: it.num_key_value_heads is None or it.family != "gpt2",
            "gpt2 has as many key and value heads as attention heads: remove it",
            at="numKeyValueHeads",
            reason="FieldValueForbidden",
        ),
        Rule(
            "self.family == 'gpt2' || self.numAttentionHeads < 1"
            " || (self.hiddenSize / self.numAttentionHeads) % (self.family == 'phi' ? 4 : 2) == 0",
            lambda it: (
                it.family == "gpt2"
                or it.hidden_size // it.num_attention_heads % (4 if it.family == "phi" else 2) == 0
            ),
            "use a width that leaves each head (hiddenSize / numAttentionHeads) an even number, and"
            " with phi a multiple of 4: positions turn pairs of numbers",
            at="hiddenSize",
        ),
    )

    family: Literal["llama", "qwen2", "qwen3", "phi", "mistral", "gpt2"]
    """The kind of model, by transformers' `model_type`."""

    hidden_size: Annotated[int, Field(ge=8, le=65_536)]
    """Width of the model; a multiple of `numAttentionHeads`."""

    num_hidden_layers: Annotated[int, Field(ge=1, le=1024)]
    """Number of layers."""

    num_attention_heads: Annotated[int, Field(ge=1, le=1024)]
    """Attention heads per layer."""

    num_key_value_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Key and value heads per layer (grouped-query attention). Default: `numAttentionHeads`."""

    intermediate_size: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Width of the feed-forward layers. Default: 4 x `hiddenSize`."""

    max_position_embeddings: Annotated[int, Field(ge=8, le=10_000_000)] = 2048
    """Context of the model in tokens; at least `training.maxLength`. Default: 2048, as in
    transformers' LlamaConfig."""

    tie_word_embeddings: bool = False
    """Input and output embeddings are one. Default: false, as in transformers' LlamaConfig."""


class TokenizerSource(ApiModel):
    """A tokenizer that is there already, or comes from another run."""

    rules: ClassVar = (ONE_SOURCE,)

    uri: Uri | None = None
    """Folder with `tokenizer.json`, as `stage: Tokenizer` or `save_pretrained` writes it. Exactly
    one of `uri` and `fromRun` must be set."""

    from_run: FromRun | None = None
    """The tokenizer of another run in this namespace, of any stage, once that run has succeeded."""


class Pretrain(ApiModel):
    """Pretraining, `stage: Pretrain`: every token of running text is trained."""

    isolate_documents: bool = True
    """Documents that share a sequence of `training.maxLength` tokens do not see each other."""

    append_eos_token: bool = True
    """Each document ends with the tokenizer's end-of-sequence token."""
