"""What a tracker needs of the image and its Secret is looked at before anything is downloaded."""

from __future__ import annotations

from typing import Any

import pytest

from llmtrain_api.errors import ConfigError
from llmtrain_api.tracking import Tracking
from llmtrain_trainer.tracking.demands import check

WANDB = {"wandb": {"project": "x", "secretName": "keys"}}
MLFLOW = {"mlflow": {"trackingUri": "http://m:5000", "experiment": "x", "secretName": "keys"}}
OPEN = {"mlflow": {"trackingUri": "http://m:5000", "experiment": "x"}}


@pytest.mark.parametrize(
    ("tracking", "environment"),
    [
        pytest.param(WANDB, {"WANDB_API_KEY": "k"}, id="a key of Weights & Biases"),
        pytest.param(WANDB, {"WANDB_MODE": "offline"}, id="offline, none is needed"),
        pytest.param(MLFLOW, {"MLFLOW_TRACKING_TOKEN": "t"}, id="a token of MLflow"),
        pytest.param(
            MLFLOW,
            {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"},
            id="an account of MLflow",
        ),
        pytest.param(OPEN, {}, id="an open server"),
    ],
)
def test_what_is_enough(tracking: dict[str, Any], environment: dict[str, str]) -> None:
    check(Tracking.model_validate(tracking), environment, lambda package: True)


@pytest.mark.parametrize(
    ("tracking", "environment", "message"),
    [
        pytest.param(
            WANDB,
            {},
            "tracking.wandb.secretName: there is no WANDB_API_KEY in the environment: put it into"
            " the Secret keys; on a machine without Kubernetes, set the variable WANDB_API_KEY",
            id="no key",
        ),
        pytest.param(
            MLFLOW,
            {"MLFLOW_TRACKING_USERNAME": "u"},
            "tracking.mlflow.secretName: the Secret keys is missing, or it has neither"
            " MLFLOW_TRACKING_TOKEN nor MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            id="a name without its password",
        ),
    ],
)
def test_a_missing_key_is_named(
    tracking: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Tracking.model_validate(tracking), environment, lambda package: True)
    assert message in str(caught.value)


def test_a_missing_package_is_named() -> None:
    tracking = Tracking.model_validate({**OPEN, **WANDB})
    with pytest.raises(ConfigError, match=r"tracking\.wandb: the package wandb is not in this"):
        check(tracking, {"WANDB_API_KEY": "k"}, lambda package: package != "wandb")


def test_a_run_without_trackers_needs_nothing() -> None:
    check(None, {}, lambda package: False)
