"""`workers.podTemplate`: what a platform adds to the pods of a run, merged over what we build.

Objects are merged field by field and lists of named objects by name; other lists and values
replace ours. What the run cannot do without is refused with the name of the field.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from llmtrain_api.errors import ConfigError
from llmtrain_api.workers import RESERVED_ENV
from llmtrain_operator.pods import OWN_VOLUMES
from llmtrain_operator.snapshot import TRAINER, Object

ROOT = "workers.podTemplate"
KEYS_OF_LISTS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}
"""By which field the items of a list are told apart; other lists are replaced as a whole."""

OWN_LABEL_PREFIXES = ("llmtrain.dev/", "batch.kubernetes.io/", "controller-uid", "job-name")
PROTECTED_OF_POD = {
    "restartPolicy": "llmtrain starts new attempts itself",
    "hostname": "the pods find each other by it",
    "subdomain": "the pods find each other by it",
    "setHostnameAsFQDN": "the pods find each other by their host names",
    "shareProcessNamespace": "the launcher must be the first process of its container",
    "activeDeadlineSeconds": "llmtrain ends attempts itself",
    "terminationGracePeriodSeconds": "set workers.terminationGracePeriodSeconds",
}
PROTECTED_OF_TRAINER = {
    "image": "set workers.image",
    "command": "it starts the launcher",
    "args": "it starts the launcher",
    "workingDir": "it starts the launcher",
    "terminationMessagePath": "llmtrain reads why a pod ended there",
    "terminationMessagePolicy": "llmtrain reads why a pod ended there",
    "envFrom": "name each variable in workers.env",
}


def apply_overlay(pod: Object, overlay: Object) -> Object:
    """Returns the pod template `pod` with `overlay` merged over it; neither is changed.

    Raises:
        ConfigError: The overlay sets what the run cannot do without.
    """
    check_overlay(overlay)
    merged = _merge(copy.deepcopy(pod), overlay, ROOT)
    return dict(merged)


def check_overlay(overlay: Object) -> None:
    """Holds `workers.podTemplate` against what llmtrain owns of a pod.

    Raises:
        ConfigError: It sets what the run cannot do without.
    """
    _refuse_null(overlay, ROOT)
    _check_keys(overlay, ROOT)
    _allow_only(overlay, ("metadata", "spec"), ROOT)
    metadata, spec = _object(overlay, "metadata", ROOT), _object(overlay, "spec", ROOT)
    _allow_only(metadata, ("labels", "annotations"), f"{ROOT}.metadata")
    for label in _object(metadata, "labels", f"{ROOT}.metadata"):
        if label.startswith(OWN_LABEL_PREFIXES):
            raise _protected(f"{ROOT}.metadata.labels[{label}]", "llmtrain finds its pods by it")
    _refuse(spec, PROTECTED_OF_POD, f"{ROOT}.spec")
    for volume in _named(spec, "volumes", f"{ROOT}.spec"):
        if volume["name"] in OWN_VOLUMES:
            field = f"{ROOT}.spec.volumes[{volume['name']}]"
            raise _protected(field, "use another name")
    for container in _named(spec, "containers", f"{ROOT}.spec"):
        _check_container(container, f"{ROOT}.spec.containers[{container['name']}]")


def _check_container(container: Object, field: str) -> None:
    if container["name"] != TRAINER:
        raise ConfigError(
            field,
            f"only the container `{TRAINER}` may be changed here, since a pod ends when all of its"
            " containers have ended",
            "put a sidecar under spec.initContainers with restartPolicy: Always",
        )
    _refuse(container, PROTECTED_OF_TRAINER, field)
    for variable in _named(container, "env", field):
        name = str(variable["name"])
        if name in RESERVED_ENV or name.startswith("LLMTRAIN_"):
            raise _protected(f"{field}.env[{name}]", "use another name")
    for mount in _named(container, "volumeMounts", field):
        if mount["name"] in OWN_VOLUMES:
            raise _protected(f"{field}.volumeMounts[{mount['name']}]", "mount a volume of your own")


def _merge(ours: Any, theirs: Any, field: str) -> Any:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        merged = dict(ours)
        for key, value in theirs.items():
            merged[key] = _merge(ours.get(key), value, f"{field}.{key}")
        return merged
    if isinstance(ours, list) and isinstance(theirs, list):
        return _merge_lists(ours, theirs, field)
    return copy.deepcopy(theirs)


def _merge_lists(ours: list[Any], theirs: list[Any], field: str) -> list[Any]:
    key = KEYS_OF_LISTS.get(field.rpartition(".")[2])
    if key is None or not all(isinstance(item, dict) and key in item for item in [*ours, *theirs]):
        return copy.deepcopy(theirs)
    merged = {item[key]: item for item in ours}
    for item in theirs:
        merged[item[key]] = _merge(merged.get(item[key]), item, f"{field}[{item[key]}]")
    return list(merged.values())


def _refuse_null(value: Any, field: str) -> None:
    if value is None:
        raise ConfigError(field, "must not be null", "leave the field out")
    parts = value.items() if isinstance(value, dict) else ()
    for name, part in parts:
        _refuse_null(part, f"{field}.{name}")


def _check_keys(value: Any, field: str) -> None:
    """Refuses items of lists that cannot be told apart, since their key is no word or number."""
    for name, part in value.items() if isinstance(value, dict) else ():
        key = KEYS_OF_LISTS.get(name, "")
        for item in part if isinstance(part, list) else ():
            if isinstance(item, dict) and not isinstance(item.get(key, ""), str | int):
                where = f"{field}.{name}"
                raise ConfigError(where, f"{key} must be a text or a number", "correct it")
            _check_keys(item, f"{field}.{name}")
        _check_keys(part, f"{field}.{name}")


def _object(parent: Object, name: str, field: str) -> Object:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{field}.{name}", "must be an object", "write it as in a pod")
    return value


def _named(parent: Object, name: str, field: str) -> Iterator[Object]:
    items = parent.get(name) or []
    if not isinstance(items, list):
        raise ConfigError(f"{field}.{name}", "must be a list", "write it as in a pod")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ConfigError(f"{field}.{name}", "each item must have a name", "give it one")
        yield item


def _allow_only(parent: Object, allowed: tuple[str, ...], field: str) -> None:
    for name in parent:
        if name not in allowed:
            raise ConfigError(
                f"{field}.{name}", "cannot be set here", f"use only {' and '.join(allowed)}"
            )


def _refuse(parent: Object, protected: dict[str, str], field: str) -> None:
    for name, why in protected.items():
        if name in parent:
            raise _protected(f"{field}.{name}", why)


def _protected(field: str, why: str) -> ConfigError:
    return ConfigError(field, "is set by llmtrain", f"remove it ({why})")
