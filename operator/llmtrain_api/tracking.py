"""Where a run's curves go beside storage: MLflow and Weights & Biases.

TensorBoard needs no word here: its event files are always in storage, below `output.uri`.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field

from llmtrain_api.base import ApiModel, Name
from llmtrain_api.markers import Rule

WANDB_KEY = "WANDB_API_KEY"
MLFLOW_TOKEN = "MLFLOW_TRACKING_TOKEN"
MLFLOW_ACCOUNT = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
MLFLOW_KEYS = (*MLFLOW_ACCOUNT, MLFLOW_TOKEN)
CREDENTIALS = (*MLFLOW_KEYS, WANDB_KEY)
"""Keys of the Secrets, and the variables by which the libraries take them."""

_SERVER = r"https?://[^ ]+"
_Server = Annotated[
    str,
    Field(max_length=512),
    Rule(
        f"self.matches('^{_SERVER}$')",
        lambda value: re.fullmatch(_SERVER, value) is not None,
        "use the URL of a server, such as http://mlflow.mlflow:5000",
    ),
]


class MLflow(ApiModel):
    """A tracking server of MLflow."""

    tracking_uri: _Server
    """URL of the server, MLflow's `MLFLOW_TRACKING_URI`, such as `http://mlflow.mlflow:5000`."""

    experiment: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the experiment; it is made where there is none of that name."""

    secret_name: Name | None = None
    """Secret in the run's namespace with MLFLOW_TRACKING_TOKEN, or with MLFLOW_TRACKING_USERNAME
    and MLFLOW_TRACKING_PASSWORD. Default: none, for a server that asks for nothing."""


class WandB(ApiModel):
    """A project of Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of the project."""

    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """User or team that the project belongs to. Default: that of the key."""

    base_url: _Server | None = None
    """URL of a server of one's own, `WANDB_BASE_URL`. Default: `https://api.wandb.ai`."""

    secret_name: Name
    """Secret in the run's namespace with WANDB_API_KEY."""


class Tracking(ApiModel):
    """Services that are told of the curves while a run trains.

    A service that is down, refuses or is slow never stops or delays training; the log and
    `warnings` in `all_results.json` say what it lacks. All attempts of a run are one run there.
    """

    rules: ClassVar = (
        Rule(
            "has(self.mlflow) || has(self.wandb)",
            lambda tracking: tracking.mlflow is not None or tracking.wandb is not None,
            "set it or wandb, or remove tracking: TensorBoard's files are always written",
            at="mlflow",
            reason="FieldValueRequired",
        ),
    )

    mlflow: MLflow | None = None
    """A tracking server of MLflow. Default: none."""

    wandb: WandB | None = None
    """A project of Weights & Biases. Default: none."""
