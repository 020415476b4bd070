"""Chat templates by name, for models without one, or in place of their own.

Each stands in `jinja/` and marks with `{% generation %}` what is trained: an answer and the token
that ends it, nothing else. Before it comes the token that begins a text, exactly where the
tokenizer itself puts one before a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError, TemplateSyntaxError

from llmtrain_api.errors import ConfigError
from llmtrain_api.stages.sft import CHAT_TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FIELD = "sft.chatTemplate"
_FOLDER = Path(__file__).parent / "jinja"
_MARKS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "qwen": ("<|im_start|>", "<|im_end|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
}
"""The tokens that a template needs; the others end an answer with the end-of-sequence token."""


def named(name: str) -> str:
    """Returns the text of a template by its name, without a token that begins a text."""
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def resolve(chosen: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the text of the template that `sft.chatTemplate` names or holds.

    Raises:
        ConfigError: The tokenizer lacks a token that it needs, or it is no template.
    """
    if chosen not in CHAT_TEMPLATES:
        _check_syntax(chosen, tokenizer)
        return chosen
    _check_tokens(chosen, tokenizer)
    begin = tokenizer.bos_token_id
    begins = begin is not None and tokenizer("")["input_ids"][:1] == [begin]
    return ("{{- bos_token }}" if begins else "") + named(chosen)


def _check_tokens(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Holds the tokenizer to have what would be read as plain text otherwise."""
    lacking = [mark for mark in _MARKS.get(name, ()) if mark not in tokenizer.get_added_vocab()]
    if lacking:
        raise ConfigError(
            _FIELD,
            f"the model's tokenizer has no token {', '.join(lacking)}, which {name} needs",
            "use a template of plain words, such as alpaca, or a model that has these tokens",
        )
    if name not in _MARKS and tokenizer.eos_token is None:
        raise ConfigError(
            _FIELD,
            "the model's tokenizer has no end-of-sequence token, so no answer could end",
            "set eos_token in the model's tokenizer_config.json",
        )


def _check_syntax(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    chat = [{"role": "user", "content": "?"}]
    try:
        tokenizer.apply_chat_template(chat, chat_template=text, tokenize=False)
    except TemplateSyntaxError as error:
        raise ConfigError(
            _FIELD, f"line {error.lineno}: {error.message}", "correct the template"
        ) from error
    except (TemplateError, TypeError):
        return  # It may refuse this chat, and be asked about others.
