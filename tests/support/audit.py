"""The API server's audit log: what an operator asked for, and what it may ask for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cluster

Right = tuple[str, str, str]
"""API group, resource, verb."""
TIME_TO_LEARN = timedelta(seconds=5)
POD_NAME = "authentication.kubernetes.io/pod-name"


def requests_of(namespace: str, name: str) -> Iterator[dict[str, Any]]:
    """Yields what the operator's Deployment asked of the API server, oldest first.

    Only pods of the build that is installed now count. The Deployment is older than that wherever
    a build was upgraded, and what an earlier build asked for would hide a right that nobody uses
    any more; pods that a test killed are of the same build, so they do count.
    """
    user = f"system:serviceaccount:{namespace}:{name}"
    pods = f"{name}-{_build(namespace, name)}-"
    for event in _events():
        [pod] = event["user"].get("extra", {}).get(POD_NAME, [""])
        if event["user"]["username"] == user and pod.startswith(pods):
            yield event


def _events() -> Iterator[dict[str, Any]]:
    folder = Path(os.environ["KUBECONFIG"]).parent
    for path in sorted(folder.glob("audit*.log"), key=lambda p: p.stat().st_mtime):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def _learned_rights() -> list[datetime]:
    """Returns when an API server that had just started read who may do what."""
    return [
        _time_of(event)
        for event in _events()
        if event["user"]["username"] == "system:apiserver"
        and event["verb"] == "list"
        and event.get("objectRef", {}).get("resource") == "clusterrolebindings"
    ]


def _time_of(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["requestReceivedTimestamp"])


def _build(namespace: str, name: str) -> str:
    """Returns the hash of the pod template of a Deployment that is up."""
    selector = f"app.kubernetes.io/instance={name},pod-template-hash"
    pods = cluster.list_of("pod", namespace, selector)
    [build] = {str(pod["metadata"]["labels"]["pod-template-hash"]) for pod in pods}
    return build


def granted(release: str) -> set[Right]:
    """Returns the rights of all rules bound to the ServiceAccount of a release."""
    rights: set[Right] = set()
    for kind in ("clusterrole", "role"):
        label = f"app.kubernetes.io/instance={release}"
        found = cluster.kubectl("get", kind, "-A", "-l", label, "-o", "json")
        for role in json.loads(found.stdout)["items"]:
            if any("aggregate-to" in label for label in role["metadata"].get("labels", {})):
                continue
            rights |= {
                (group, resource, verb)
                for rule in role.get("rules") or []
                for group in rule.get("apiGroups", [])
                for resource in rule.get("resources", [])
                for verb in rule["verbs"]
            }
    return rights


def used_and_refused(namespace: str, name: str) -> tuple[set[Right], list[tuple[Right, str]]]:
    """Returns the rights that an operator made use of, and the requests that were refused.

    What is to be made in a namespace that ends is refused to everybody, and does not count; no more
    does what an API server refuses that was started a moment ago and knows nobody's rights yet.
    """
    used: set[Right] = set()
    refused = []
    learned = _learned_rights()
    for event in requests_of(namespace, name):
        target = event.get("objectRef")
        if target is None:  # It asks which kinds there are, as everybody may.
            continue
        resource = "/".join(filter(None, [target.get("resource"), target.get("subresource")]))
        right = (target.get("apiGroup", ""), resource, event["verb"])
        used.add(right)
        answer = event.get("responseStatus", {})
        message = json.dumps(answer)
        if answer.get("code") != 403 or "because it is being terminated" in message:
            continue
        asked = _time_of(event)
        if not any(asked <= known < asked + TIME_TO_LEARN for known in learned):
            refused.append((right, message))
    return used, refused
