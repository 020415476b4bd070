"""What an administrator decides about the operator, read from LLMTRAIN_* environment variables.

The chart sets them; `from_environment` names the variable that is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from llmtrain_api.progress import PROGRESS_PATH

PREFIX = "LLMTRAIN_"


def _split(value: object) -> object:
    """Returns the parts of a comma-separated text; anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class SettingsError(Exception):
    """A variable is wrong; the message names it and says what it may hold."""


class Settings(BaseModel):
    """Each field is the variable of the same name in capitals, such as LLMTRAIN_TRAINER_IMAGE."""

    model_config = ConfigDict(frozen=True)

    trainer_image: str = ""
    """Image of trainer pods where a run names none."""

    watch_namespaces: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Namespaces whose runs are served, with commas between. Default: all."""

    namespace: str = "llmtrain-system"
    """The operator's own namespace; its Service is there."""

    service_name: str = "llmtrain"
    """The Service through which trainer pods reach the progress endpoint."""

    progress_port: Annotated[int, Field(ge=1, le=65535)] = 8443
    """Port of the progress endpoint, in the pod and on the Service."""

    health_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port of /healthz, /readyz and /metrics."""

    tls_folder: Path | None = None
    """Folder with tls.crt, tls.key and ca.crt. Default: certificates made in memory."""

    status_interval_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Least time between two writes of one run's progress; a change of phase is written at once."""

    status_writes_per_second: Annotated[float, Field(gt=0)] = 10.0
    """Budget of progress writes over all runs: with more of them, each is written less often."""

    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Runs that are worked on at the same time."""

    restart_delay_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Delay before a new attempt; doubles with each one that makes no progress, up to 5 minutes."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""

    @property
    def service_host(self) -> str:
        """Host name of the progress endpoint inside the cluster."""
        return f"{self.service_name}.{self.namespace}.svc"

    @property
    def progress_url(self) -> str:
        """Where trainer pods post their progress."""
        return f"https://{self.service_host}:{self.progress_port}{PROGRESS_PATH}"


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Returns the settings that the LLMTRAIN_* variables hold; an empty one counts as not set.

    Raises:
        SettingsError: A variable is wrong.
    """
    values = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if environment.get(PREFIX + name.upper())
    }
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        variable = PREFIX + "_".join(str(part) for part in first["loc"][:1]).upper()
        raise SettingsError(
            f"{variable}: {first['msg']}, not {first['input']!r}: correct it in the Deployment, or"
            " leave it out for the default"
        ) from error
