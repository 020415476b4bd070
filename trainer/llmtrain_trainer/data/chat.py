"""From rows to token ids and labels: the loss falls on the answers, end of turn included.

A conversation is rendered by the model's own chat template. Which tokens are the assistant's is
read from the template's `{% generation %}` marks where it has them (TRL carries marked editions
of the templates of many models); from any other template by rendering the conversation turn by
turn: what a turn of the assistant adds to the text is what is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data.rows import Chat, Completion, Row

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that is not trained, as PyTorch's cross entropy has it."""

Span = tuple[int, int]

_MARK_THE_TEMPLATE = (
    "put {% generation %} and {% endgeneration %} around the assistant's words and the end of its"
    " turn in the model's chat_template.jinja"
)


@dataclass(frozen=True)
class Tokens:
    """One row as the model sees it; `labels` are `input_ids` or `IGNORED`, of the same length."""

    input_ids: list[int]
    labels: list[int]


class Encoder:
    """Turns rows into tokens with one model's tokenizer.

    Args:
        tokenizer: The model's tokenizer.
        all_tokens: Train every token, not the answers only.
        last_answer: Train the last answer only.

    Raises:
        ConfigError: The tokenizer cannot say which characters a token stands for.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        all_tokens: bool = False,
        last_answer: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise ConfigError(
                "model.uri",
                f"its tokenizer {type(tokenizer).__name__} does not say which characters a token"
                " stands for",
                "save it as tokenizer.json (a tokenizer of the `tokenizers` library)",
            )
        self._tokenizer = tokenizer
        self._all_tokens = all_tokens
        self._last_answer = last_answer
        self._marked_template = _find_marked_template(tokenizer)
        eos = [tokenizer.eos_token] if tokenizer.eos_token else []
        self._shows_calls = self._shows_tools = False  # Until seen.
        self._turn_ends = (*tokenizer.get_added_vocab(), *eos)

    def encode(self, rows: Sequence[Row]) -> list[Tokens]:
        """Returns the tokens of `rows`, which are all chats or all completions.

        Raises:
            ConfigError: The chat template does not show where an answer begins or ends.
            DataError: The chat template refuses a row.
        """
        encoded = self._encode(rows)
        return [_last_answer_of(tokens) for tokens in encoded] if self._last_answer else encoded

    def _encode(self, rows: Sequence[Row]) -> list[Tokens]:
        chats = [row.content for row in rows if isinstance(row.content, Chat)]
        if not chats:
            return self._encode_completions(rows)
        for row, chat in zip(rows, chats, strict=True):
            self._check_tools(row, chat)
        if self._marked_template is None:
            return self._encode_rendered(rows, chats)
        if any(chat.tools for chat in chats) and len(chats) > 1:  # One call takes one set of tools.
            return [tokens for row in rows for tokens in self._encode([row])]
        return self._encode_marked(rows, chats)

    def _encode_completions(self, rows: Sequence[Row]) -> list[Tokens]:
        """Encodes prompt and completion as one text that ends with the end-of-sequence token."""
        contents = [row.content for row in rows if isinstance(row.content, Completion)]
        batch = self._tokenizer([content.prompt + content.completion for content in contents])
        end = self._tokenizer.eos_token_id
        if end is None:
            raise ConfigError(
                "model.uri",
                "its tokenizer has no end-of-sequence token, so no answer could end",
                "set eos_token in the model's tokenizer_config.json",
            )
        encoded = []
        for index, content in enumerate(contents):
            ids = list(batch["input_ids"][index])
            text_length = len(content.prompt) + len(content.completion)
            labels = self._labels(batch, index, ids, [(len(content.prompt), text_length)])
            if ids[-1:] != [end]:
                ids.append(end)
                labels.append(end)
            labels[-1] = end
            encoded.append(Tokens(ids, labels))
        return encoded

    def _check_tools(self, row: Row, chat: Chat) -> None:
        """Holds the template to show tools and calls of them, at the first row that has some."""
        called = any(
            message["role"] == "tool" or "tool_calls" in message for message in chat.messages
        )
        if called and not self._shows_calls:
            shown = self._shows_calls = _shows_calls(self._tokenizer)
            if not shown:
                raise _hidden(row, "calls of tools")
        if chat.tools and not self._shows_tools:
            with_tools = self._render_text(row, chat)
            shown = self._shows_tools = with_tools != self._render_text(row, Chat(chat.messages))
            if not shown:
                raise _hidden(row, "tools")

    def _encode_marked(self, rows: Sequence[Row], chats: list[Chat]) -> list[Tokens]:
        """Encodes chats by a template with `{% generation %}` marks."""
        try:
            batch = self._apply_marked(chats)
        except (TemplateError, TypeError) as error:
            if len(rows) == 1:
                raise refused_row(rows[0], error) from error
            # Some row of the batch is at fault: find it, so that the message can name its line.
            return [tokens for row in rows for tokens in self._encode([row])]
        encoded = []
        for row, ids, mask in zip(rows, batch["input_ids"], batch["assistant_masks"], strict=True):
            if not any(mask):
                raise DataError(
                    row.place, "the chat template marks no token of its answers", _MARK_THE_TEMPLATE
                )
            trained = [
                token if answer or self._all_tokens else IGNORED
                for token, answer in zip(ids, mask, strict=True)
            ]
            encoded.append(Tokens(list(ids), trained))
        return encoded

    def _apply_marked(self, chats: list[Chat]) -> Any:
        return self._tokenizer.apply_chat_template(
            [chat.messages for chat in chats],
            tools=chats[0].tools,
            chat_template=self._marked_template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )

    def _encode_rendered(self, rows: Sequence[Row], chats: list[Chat]) -> list[Tokens]:
        """Encodes chats by a template without marks."""
        rendered = [self._render(row, chat) for row, chat in zip(rows, chats, strict=True)]
        batch = self._tokenizer([text for text, _ in rendered], add_special_tokens=False)
        encoded = []
        for index, (_, spans) in enumerate(rendered):
            ids = list(batch["input_ids"][index])
            encoded.append(Tokens(ids, self._labels(batch, index, ids, spans)))
        return encoded

    def _render(self, row: Row, chat: Chat) -> tuple[str, list[Span]]:
        """Returns the conversation's text and where in it the assistant speaks."""
        text = self._render_text(row, chat)
        spans = []
        for number, message in enumerate(chat.messages):
            if message["role"] != "assistant":
                continue
            begin = Chat(chat.messages[:number], chat.tools)
            before = self._render_text(row, begin, answer_next=True)
            after = self._render_text(row, Chat(chat.messages[: number + 1], chat.tools))
            if not (after.startswith(before) and text.startswith(after)):
                raise ConfigError(
                    "model.uri",
                    "its chat template renders a turn differently once another follows"
                    f" (seen in {row.place}), so the answers cannot be told apart",
                    _MARK_THE_TEMPLATE + ", or use rows with one answer each",
                )
            if not after.rstrip().endswith(self._turn_ends):
                raise ConfigError(
                    "model.uri",
                    f"its chat template ends the assistant's turn in plain text ({after[-20:]!r}),"
                    " so the model would never learn to stop",
                    "let the template end that turn with a special token such as <|im_end|>",
                )
            spans.append((len(before), len(after)))
        return text, spans

    def _render_text(self, row: Row, chat: Chat, *, answer_next: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                chat.messages,
                tools=chat.tools,
                chat_template=self._marked_template,
                tokenize=False,
                add_generation_prompt=answer_next,
            )
        except (TemplateError, TypeError) as error:
            raise refused_row(row, error) from error
        return str(text)

    def _labels(
        self, batch: BatchEncoding, index: int, ids: list[int], spans: Sequence[Span]
    ) -> list[int]:
        """Returns the labels of one text: a token that reaches into a span is trained."""
        if self._all_tokens:
            return list(ids)
        labels = [IGNORED] * len(ids)
        for start, end in spans:
            first = _token_at(batch, index, range(start, end))
            last = _token_at(batch, index, range(end - 1, start - 1, -1))
            if first is not None and last is not None:
                after = _end_of_character(batch, index, last, len(ids))
                labels[first:after] = ids[first:after]
        return labels


def _last_answer_of(tokens: Tokens) -> Tokens:
    """Returns a row of which nothing before its last run of trained tokens is trained."""
    labels = tokens.labels
    end = next((n for n in range(len(labels), 0, -1) if labels[n - 1] != IGNORED), 0)
    begin = next((n for n in range(end, 0, -1) if labels[n - 1] == IGNORED), 0)
    return Tokens(tokens.input_ids, [IGNORED] * begin + labels[begin:])


def _token_at(batch: BatchEncoding, index: int, characters: range) -> int | None:
    """Returns the token of the first of `characters` that has one: tokenizers may drop blanks."""
    for character in characters:
        token = batch.char_to_token(index, character)
        if token is not None:
            return int(token)
    return None


def _end_of_character(batch: BatchEncoding, index: int, token: int, count: int) -> int:
    """Returns the number after the last token of a character, which may be spread over several."""
    span = batch.token_to_chars(index, token)
    while token + 1 < count and batch.token_to_chars(index, token + 1) == span:
        token += 1
    return token + 1


def _shows_calls(tokenizer: PreTrainedTokenizerBase) -> bool:
    from trl.chat_template_utils import supports_tool_calling

    return bool(supports_tool_calling(tokenizer))


def _hidden(row: Row, what: str) -> ConfigError:
    return ConfigError(
        "model.uri",
        f"its chat template does not show {what}, which {row.place} has",
        "use a model or a chat template that does, or remove them from the rows",
    )


def refused_row(row: Row, error: Exception) -> DataError:
    """Returns what is said of a row that the chat template cannot render."""
    return DataError(
        row.place,
        f"the model's chat template refuses it ({error})",
        "correct the row, or use a model whose template takes such conversations",
    )


def _find_marked_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns a template with `{% generation %}` marks that hold the end of turn too, or none."""
    from trl.chat_template_utils import (
        get_training_chat_template,
        has_generation_markers,
        is_chat_template_stop_token_trained,
    )

    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own["default"]
    if own is None:
        return None
    if has_generation_markers(own):
        marked = own
    else:
        try:
            marked = get_training_chat_template(tokenizer)
        except ValueError:  # TRL's word for a template that it has no marked edition of.
            return None
    if not is_chat_template_stop_token_trained(tokenizer, chat_template=marked):
        return None
    return str(marked)
