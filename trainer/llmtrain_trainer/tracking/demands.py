"""What a tracker needs of the image and of its Secret, looked at before anything is downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping

from llmtrain_api.errors import ConfigError
from llmtrain_api.tracking import MLFLOW_ACCOUNT, MLFLOW_TOKEN, WANDB_KEY, Tracking

_WITHOUT_KEY = ("offline", "disabled", "dryrun")
"""Values of WANDB_MODE in which nothing is sent."""


def installed(package: str) -> bool:
    """Returns whether a package is there, without importing it."""
    return importlib.util.find_spec(package) is not None


def check(
    tracking: Tracking | None,
    environment: Mapping[str, str],
    has_package: Callable[[str], bool] = installed,
) -> None:
    """Holds what the spec asks for against what is there.

    A service that is down is no reason not to train; one that could never be told is, since whoever
    named it would look for the curves in vain.

    Raises:
        ConfigError: A package or a key is missing.
    """
    if tracking is None:
        return
    for package, wanted in (("mlflow", tracking.mlflow), ("wandb", tracking.wandb)):
        if wanted is not None and not has_package(package):
            raise ConfigError(
                f"tracking.{package}",
                f"the package {package} is not in this image",
                f"use an image with it, such as llmtrain's own, or remove tracking.{package}",
            )
    offline = environment.get("WANDB_MODE") in _WITHOUT_KEY
    if tracking.wandb is not None and not offline and not environment.get(WANDB_KEY):
        raise ConfigError(
            "tracking.wandb.secretName",
            f"there is no {WANDB_KEY} in the environment",
            f"put it into the Secret {tracking.wandb.secret_name}; on a machine without"
            f" Kubernetes, set the variable {WANDB_KEY}",
        )
    if tracking.mlflow is not None and tracking.mlflow.secret_name is not None:
        _check_account(tracking.mlflow.secret_name, environment)


def _check_account(secret: str, environment: Mapping[str, str]) -> None:
    """Looks for a token, or a name with its password."""
    if environment.get(MLFLOW_TOKEN) or all(environment.get(key) for key in MLFLOW_ACCOUNT):
        return
    raise ConfigError(
        "tracking.mlflow.secretName",
        f"the Secret {secret} is missing, or it has neither {MLFLOW_TOKEN} nor"
        f" {' and '.join(MLFLOW_ACCOUNT)}",
        "make it with them in the run's namespace, or remove the field for a server that asks for"
        " nothing",
    )
