"""Whether a run's spec can be carried out at all, as far as the operator can tell; pure.

The API server has checked it by schema and CEL already. What is left is what neither can say, and
what an older CRD in the cluster let pass.
"""

from __future__ import annotations

from pydantic import ValidationError

from llmtrain_api.errors import ConfigError
from llmtrain_api.run import RunSpec
from llmtrain_operator.overlay import check_overlay
from llmtrain_operator.snapshot import Object

MAX_ERRORS = 5


def accept(spec: Object, trainer_image: str) -> RunSpec:
    """Returns the spec with all defaults in place.

    `trainer_image` is the image of runs that name none; empty where there is no such default.

    Raises:
        ConfigError: The spec cannot be carried out.
    """
    try:
        accepted = RunSpec.model_validate(spec)
    except ValidationError as error:
        raise config_error(error, "raise spec.retry") from error
    if not accepted.workers.image and not trainer_image:
        raise ConfigError(
            "workers.image",
            "is not set, and the operator has no trainer image for such runs",
            "name an image, or have the administrator set trainerImage in the chart's values, then"
            " raise spec.retry",
        )
    if accepted.workers.pod_template is not None:
        check_overlay(accepted.workers.pod_template)
    return accepted


def config_error(error: ValidationError, then: str) -> ConfigError:
    """Returns our error for what pydantic refuses; `then` is the last thing to do about it."""
    details = error.errors()
    problems = [
        ".".join(str(part) for part in detail["loc"]) + ": " + detail["msg"] for detail in details
    ]
    more = f" and {len(problems) - MAX_ERRORS} more" if len(problems) > MAX_ERRORS else ""
    return ConfigError(
        "spec",
        "; ".join(problems[:MAX_ERRORS]) + more,
        f"correct it, or bring the CRD and the operator to one version and {then}: this"
        " CRD lets pass what this operator does not know",
    )
