"""Whether a schedule's spec can be carried out, as far as the operator can tell; pure.

The API server has checked it by schema and CEL already. What is left is what neither can say: that
there is such a time zone, that some time fits, that labels read as Kubernetes wants them.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from llmtrain_api.errors import ConfigError
from llmtrain_api.schedule import RunMetadata, ScheduleSpec
from llmtrain_operator.acceptance import config_error
from llmtrain_operator.overlay import check_overlay
from llmtrain_operator.snapshot import Object
from llmtrain_operator.timetable import Timetable

_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}")
_VALUE = re.compile(rf"({_WORD})?")


def accept_schedule(spec: Object) -> ScheduleSpec:
    """Returns the spec with all defaults in place.

    Raises:
        ConfigError: The spec cannot be carried out.
    """
    try:
        accepted = ScheduleSpec.model_validate(spec)
    except ValidationError as error:
        raise config_error(error, "apply the schedule again") from error
    Timetable(accepted.schedule, accepted.time_zone)
    _check_metadata(accepted.run_template.metadata)
    overlay = accepted.run_template.spec.workers.pod_template
    if overlay is not None:
        check_overlay(overlay)
    return accepted


def _check_metadata(metadata: RunMetadata) -> None:
    for field, keys in (("labels", metadata.labels), ("annotations", metadata.annotations)):
        for key in keys:
            if not _KEY.fullmatch(key):
                raise ConfigError(
                    f"runTemplate.metadata.{field}",
                    f"Kubernetes takes no key {key!r}",
                    "use letters, digits, '-', '_' and '.', with a domain and '/' before or not",
                )
    for key, value in metadata.labels.items():
        if not _VALUE.fullmatch(value):
            raise ConfigError(
                f"runTemplate.metadata.labels.{key}",
                f"Kubernetes takes no value {value!r}",
                "use at most 63 letters, digits, '-', '_' and '.', from a letter or digit to a"
                " letter or digit",
            )
