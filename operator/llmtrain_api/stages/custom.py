"""`stage: Custom`: a command of the user's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmtrain_api.base import ApiModel
from llmtrain_api.markers import Atomic

_Word = Annotated[str, Field(max_length=1024)]


class Custom(ApiModel):
    """A command of one's own under llmtrain's launcher, `stage: Custom`.

    `$(NAME)` in it stands for an environment variable, as in a pod: LLMTRAIN_MODEL_DIR,
    LLMTRAIN_DATA_DIR, LLMTRAIN_OUTPUT_DIR, LLMTRAIN_RESUME_FROM, LLMTRAIN_SAVE_STEPS, those of
    torchrun and those of `workers.env`.
    """

    command: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]],
        Field(min_length=1, max_length=16),
        Atomic(),
    ]
    """The program and its first arguments, such as `[python3, train.py]`. It runs in the image's
    working folder."""

    args: Annotated[list[_Word], Field(max_length=128), Atomic()] = []
    """More arguments, such as `[--output_dir, $(LLMTRAIN_OUTPUT_DIR)]`. Default: none."""

    launcher: Literal["Torchrun", "None"] = "Torchrun"
    """`Torchrun` starts the command `workers.processesPerNode` times on each node, with torch in
    the image. `None` starts it once on each node, so that it may start processes itself. Default:
    `Torchrun`."""
