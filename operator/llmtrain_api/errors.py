"""The errors that a user of llmtrain can meet, each with the class by which its process exits.

LLMTrainError
├── ConfigError     the spec cannot work; a retry cannot help
├── DataError       storage does not hold what the spec names, or not in the shape it says
└── StorageError    storage does not answer; a retry may help

The message names the field or object at fault, says what is wrong and what to do.
"""

from __future__ import annotations

from llmtrain_api.exits import ExitClass


class LLMTrainError(Exception):
    """Base of the errors that carry a message for the user."""

    exit_class = ExitClass.INTERNAL


class ConfigError(LLMTrainError):
    """The spec cannot be carried out as written.

    `field` is the path in the spec, such as `training.maxLength`; the message starts with it.
    """

    exit_class = ExitClass.CONFIG

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}: {remedy}")
        self.field = field


class DataError(LLMTrainError):
    """An input is missing, empty or malformed.

    `place` is its URI, with the line where there is one.
    """

    exit_class = ExitClass.DATA

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place}: {problem}: {remedy}")
        self.place = place


class StorageError(LLMTrainError):
    """Object storage cannot be reached or refuses; `place` is the URI or endpoint."""

    exit_class = ExitClass.STORAGE

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place}: {problem}: {remedy}")
        self.place = place
