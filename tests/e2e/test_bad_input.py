"""What only the cluster, the bucket or the pod can know: refused soon, with the full message.

All cases run at once, each in a namespace of its own. What a user reads is compared with
`golden/refused_later.txt`; `UPDATE_GOLDEN=1` writes that file anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster
import pytest
import tiny

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
GOLDEN = Path(__file__).parent / "golden" / "refused_later.txt"


@dataclass(frozen=True)
class Case:
    """One mistake: what it changes, what it needs, and where the message is read."""

    id: str
    changes: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[str], None] = lambda namespace: None
    waits: bool = False  # True: may heal, so the run waits and says why in WorkersReady.


def _without_secret(namespace: str) -> None:
    cluster.kubectl("delete", "secret", "s3-credentials", "-n", namespace)


def _with_denied_account(namespace: str) -> None:
    cluster.apply(cluster.secret(namespace, prefix="DENIED_"))


def _with_wrong_keys(namespace: str) -> None:
    wrong = cluster.secret(namespace)
    wrong["stringData"]["AWS_SECRET_ACCESS_KEY"] = "wrong"
    cluster.apply(wrong)


def _object(kind: str, api: str, spec: dict[str, Any]) -> Callable[[str], None]:
    def create(namespace: str) -> None:
        metadata = {"name": "bound", "namespace": namespace}
        cluster.apply({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec})

    return create


def _upload(bucket: str, key: str, body: bytes) -> Callable[[str], None]:
    def put(namespace: str) -> None:
        cluster.s3_client().put_object(Bucket=bucket, Key=key, Body=body)

    return put


def _tiny_copy(prefix: str, without: tuple[str, ...]) -> Callable[[str], None]:
    def copy(namespace: str) -> None:
        client = cluster.s3_client()
        for key in cluster.keys_of("models", "tiny/"):
            if not key.endswith(without):
                body = client.get_object(Bucket="models", Key=key)["Body"].read()
                client.put_object(Bucket="models", Key=key.replace("tiny/", prefix, 1), Body=body)

    return copy


def _owned_prefix(namespace: str) -> None:
    owner = {
        "name": "other",
        "namespace": "elsewhere",
        "uid": "11111111-2222-3333-4444-555555555555",
        "specHash": "0" * 64,
        "createdAt": "2026-01-01T00:00:00Z",
    }
    key = f"{namespace}/run/owner.json"
    cluster.s3_client().put_object(Bucket="runs", Key=key, Body=json.dumps(owner).encode())


def _data(uri: str, format_: str = "Alpaca") -> dict[str, Any]:
    return {"datasets": [{"uri": uri, "format": format_}]}


ROW = json.dumps(tiny.alpaca_rows(1)[0])
CASES = [
    Case("the storage secret is missing", prepare=_without_secret, waits=True),
    Case(
        "the image cannot be pulled",
        {"workers": {"image": "10.99.0.1:5000/llmtrain/none:1"}},
        waits=True,
    ),
    Case(
        "the pods fit no node",
        {"workers": {"resources": {"requests": {"memory": "4Ti"}, "limits": {"memory": "4Ti"}}}},
        waits=True,
    ),
    Case("no node has the label", {"workers": {"nodeSelector": {"disk": "none"}}}, waits=True),
    Case(
        "the quota is exceeded",
        prepare=_object("ResourceQuota", "v1", {"hard": {"limits.memory": "1Gi"}}),
        waits=True,
    ),
    Case(
        "a limit range forbids the size",
        prepare=_object(
            "LimitRange", "v1", {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}
        ),
        waits=True,
    ),
    Case("the service account is missing", {"workers": {"serviceAccountName": "none"}}, waits=True),
    Case("the priority class is missing", {"workers": {"priorityClassName": "none"}}, waits=True),
    Case(
        "the pod does not fit in time",
        {
            "startTimeoutSeconds": 10,
            "workers": {"nodeSelector": {"disk": "none"}},
        },
    ),
    Case(
        "the pod template is not a pod's",
        {"workers": {"podTemplate": {"spec": {"hostAliases": "none"}}}},
    ),
    Case(
        "the pod template takes a protected field",
        {"workers": {"podTemplate": {"spec": {"restartPolicy": "Always"}}}},
    ),
    Case("the bucket is missing", _data("s3://no-such-bucket/train.jsonl")),
    Case("the object is missing", _data("s3://data/tiny/none.jsonl")),
    Case("the account may not read", prepare=_with_denied_account),
    Case("the keys are wrong", prepare=_with_wrong_keys),
    Case("the model folder is missing", {"model": {"uri": "s3://models/none/"}}),
    Case(
        "the model folder has no config.json",
        {"model": {"uri": "s3://models/bad-config/"}},
        _tiny_copy("bad-config/", ("/config.json",)),
    ),
    Case(
        "the model folder has no weights",
        {"model": {"uri": "s3://models/bad-weights/"}},
        _tiny_copy("bad-weights/", (".safetensors",)),
    ),
    Case(
        "the tokenizer has no chat template",
        {"model": {"uri": "s3://models/bad-template/"}},
        _tiny_copy("bad-template/", ("chat_template.jinja",)),
    ),
    Case(
        "the data set is empty",
        _data("s3://data/bad/empty.jsonl"),
        _upload("data", "bad/empty.jsonl", b""),
    ),
    Case(
        "a line is not JSON",
        _data("s3://data/bad/json.jsonl"),
        _upload("data", "bad/json.jsonl", f'{ROW}\n{ROW}\n{{"instruction": "x"\n'.encode()),
    ),
    Case(
        "a column is missing",
        _data("s3://data/bad/column.jsonl"),
        _upload("data", "bad/column.jsonl", f'{ROW}\n{{"instruction": "x"}}\n'.encode()),
    ),
    Case(
        "the format is not the data's",
        _data("s3://data/tiny/train.jsonl", "Messages"),
    ),
    Case("maxLength exceeds the model's context", {"training": {"maxLength": 4096}}),
    Case("an argument is unknown", {"training": {"arguments": {"adam_beta": 0.9}}}),
    Case(
        "an argument is owned by a field",
        {"training": {"arguments": {"per_device_train_batch_size": 8}}},
    ),
    Case("the optimizer is unknown", {"training": {"optim": "adamx"}}),
    Case("the prefix is owned by another spec", prepare=_owned_prefix),
    Case(
        "no data is left to train on",
        {"evaluation": {"fraction": 0.999999}},
    ),
]


def _plain(text: str, namespace: str) -> str:
    """Returns `text` without what differs from one run to the next."""
    text = text.replace(namespace, "NAMESPACE")
    text = re.sub(r"run-a(\d+)-(\d+)-[a-z0-9]{5}\b", r"run-a\1-\2-SUFFIX", text)
    return re.sub(r"used: limits\.memory=\d+\w*", "used: limits.memory=N", text)


def _refusal(namespace: str, waits: bool) -> str:
    """Returns what the run says of the mistake; empty until it says it."""
    status = cluster.status_of(namespace, "run")
    if waits:
        told = cluster.condition(status, "WorkersReady")
        settled = told.get("status") == "False" and told["reason"] not in (
            "Starting",
            "ErrImagePull",
        )
    else:
        told = cluster.condition(status, "Succeeded")
        settled = told.get("status") == "False"
    if not settled:
        return ""
    return f"{told['type']}={told['status']} {told['reason']}\n  {told['message']}"


def _start(cases: list[Case], base: str) -> dict[str, str]:
    """Applies each case in a namespace of its own; returns the namespaces by case."""
    namespaces = {case.id: f"{base[:40]}-{number}" for number, case in enumerate(cases)}
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    for case in cases:
        namespace = namespaces[case.id]
        metadata = {"name": namespace, "labels": labels}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        cluster.apply(cluster.secret(namespace))
        case.prepare(namespace)
        cluster.apply(cluster.run_manifest(namespace, "run", case.changes))
    return namespaces


def test_each_mistake_is_named_with_its_way_out(namespace: str, tiny_inputs: None) -> None:
    namespaces = _start(CASES, namespace)
    try:
        blocks = []
        for case in CASES:
            where = namespaces[case.id]
            text = cluster.wait_until(
                lambda where=where, case=case: _refusal(where, case.waits),  # type: ignore[misc]
                f"{case.id}: {cluster.status_of(where, 'run')}",
                seconds=420,
            )
            blocks.append(f"# {case.id}\n{_plain(text, where)}\n")
            _failed_once_at_most(case, where)
        seen = "\n".join(blocks)
        if os.environ.get("UPDATE_GOLDEN"):
            GOLDEN.parent.mkdir(exist_ok=True)
            GOLDEN.write_text(seen)
        assert seen == GOLDEN.read_text()
    finally:
        cluster.kubectl("delete", "namespace", *namespaces.values(), "--wait=false")


def _failed_once_at_most(case: Case, namespace: str) -> None:
    """A mistake that cannot heal is tried once and leaves nothing running."""
    status = cluster.status_of(namespace, "run")
    attempts = status.get("attempts", [])
    assert len(attempts) <= 1, f"{case.id}: tried {len(attempts)} times"
    if not case.waits:
        assert cluster.condition(status, "Stalled")["status"] == "True", case.id
        assert cluster.condition(status, "Finished")["status"] == "True", case.id
