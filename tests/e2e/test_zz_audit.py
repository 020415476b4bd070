"""The API server's audit log, read after all other tests: every right is used, none was missing.

The file's name puts it last: it judges what the operator did in the tests before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]
USER = "system:serviceaccount:llmtrain-system:llmtrain"


def _requests() -> Iterator[dict[str, Any]]:
    """Yields what the operator asked of the API server, oldest first."""
    folder = Path(os.environ["KUBECONFIG"]).parent
    for path in sorted(folder.glob("audit*.log"), key=lambda p: p.stat().st_mtime):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                if event["user"]["username"] == USER and "objectRef" in event:
                    yield event


def _granted() -> set[tuple[str, str, str]]:
    """Returns (API group, resource, verb) of all rules bound to the operator's ServiceAccount."""
    granted: set[tuple[str, str, str]] = set()
    for kind in ("clusterrole", "role"):
        found = cluster.kubectl(
            "get", kind, "-A", "-l", "app.kubernetes.io/name=llmtrain", "-o", "json"
        )
        for role in json.loads(found.stdout)["items"]:
            if any("aggregate-to" in label for label in role["metadata"].get("labels", {})):
                continue
            for rule in role.get("rules") or []:
                granted |= {
                    (group, resource, verb)
                    for group in rule.get("apiGroups", [])
                    for resource in rule.get("resources", [])
                    for verb in rule["verbs"]
                }
    return granted


def test_each_right_of_the_operator_is_used_and_nothing_was_refused() -> None:
    used: set[tuple[str, str, str]] = set()
    refused = []
    for event in _requests():
        target = event["objectRef"]
        resource = "/".join(filter(None, [target.get("resource"), target.get("subresource")]))
        key = (target.get("apiGroup", ""), resource, event["verb"])
        used.add(key)
        if event.get("responseStatus", {}).get("code") in (401, 403) and "namespace" in target:
            gone = "because it is being terminated" in json.dumps(event["responseStatus"])
            if not gone:
                refused.append((key, event["responseStatus"]))
    granted = _granted()
    assert granted
    assert sorted(granted - used) == [], "rights that the operator has and does not use"
    assert refused == []
