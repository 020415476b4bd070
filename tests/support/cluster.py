"""What the end-to-end tests say and ask of the cluster, in the words of kubectl and S3."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config

Seen = TypeVar("Seen")

CONTEXT = "llmtrain-dev"
STORAGE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def kubectl(
    *args: str, stdin: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs kubectl against the one-machine cluster, and no other."""
    command = ["kubectl", "--context", CONTEXT, *args]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result


def apply(manifest: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Applies one object, or several."""
    items = manifest if isinstance(manifest, list) else [manifest]
    kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )


def get(kind: str, namespace: str, name: str) -> dict[str, Any]:
    """Returns one object, or {} where there is none."""
    result = kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
    return json.loads(result.stdout) if result.stdout.strip() else {}


def list_of(kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
    """Returns the objects of a kind in a namespace."""
    result = kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
    return list(json.loads(result.stdout)["items"])


def status_of(namespace: str, name: str) -> dict[str, Any]:
    """Returns the status of a run; {} before there is one."""
    return dict(get("llmtrainrun", namespace, name).get("status") or {})


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    """Returns one condition of a status; {} where it is not set."""
    return next((c for c in status.get("conditions", []) if c["type"] == type_), {})


def wait_until(
    look: Callable[[], Seen], what: str, seconds: float = 180, every: float = 0.5
) -> Seen:
    """Looks until what is seen is true, and returns it; fails with the last sight otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)


def wait_finished(namespace: str, name: str, seconds: int = 300) -> dict[str, Any]:
    """Waits until a run is finished, either way, as a user would, and returns its status."""
    result = kubectl(
        "wait", "--for=condition=Finished", f"llmtrainrun/{name}", "-n", namespace,
        f"--timeout={seconds}s", check=False,
    )  # fmt: skip
    if result.returncode:
        told = kubectl("describe", "llmtrainrun", name, "-n", namespace, check=False).stdout
        pods = kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False).stdout
        raise AssertionError(f"{name} did not finish in {seconds} s\n{told}\n{pods}")
    return status_of(namespace, name)


def wait_for_checkpoint(namespace: str, name: str) -> None:
    """Waits until a run has a whole checkpoint in storage: the status says so seconds later."""

    def seen() -> bool:
        keys = keys_of("runs", f"{namespace}/{name}/checkpoints/")
        return any(key.endswith("/manifest.json") for key in keys)

    wait_until(seen, "a checkpoint", seconds=240, every=0.2)


def s3_client() -> Any:
    """Returns a boto3 client of the cluster's S3 server."""
    return boto3.client(
        "s3",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name=os.environ["AWS_REGION"],
        config=Config(retries={"mode": "standard", "total_max_attempts": 5}),
    )


def keys_of(bucket: str, prefix: str) -> dict[str, str]:
    """Returns the ETag of each object under a prefix, by key."""
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {o["Key"]: o["ETag"] for page in pages for o in page.get("Contents", [])}


def read_json(bucket: str, key: str) -> Any:
    """Returns a JSON object from storage."""
    return json.loads(s3_client().get_object(Bucket=bucket, Key=key)["Body"].read())


def read_logs(namespace: str, run: str) -> str:
    """Returns the logs of a run's pods, all nodes, as kubectl shows them."""
    return kubectl(
        "logs",
        "-n",
        namespace,
        "-l",
        f"llmtrain.dev/run={run}",
        "--tail=-1",
        "--prefix",
        check=False,
    ).stdout


def secret(namespace: str, name: str = "s3-credentials", prefix: str = "") -> dict[str, Any]:
    """Returns the Secret with the S3 keys; `prefix="DENIED_"` for the account without rights."""
    keys = {key: os.environ[prefix + key] for key in STORAGE_KEYS}
    server = {key: os.environ[key] for key in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {**keys, **server},
    }


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with `changes` merged into it, field by field; None removes a field."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def run_manifest(
    namespace: str, name: str, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns a small LoRA run on the tiny model, with `changes` merged into its spec."""
    spec: dict[str, Any] = {
        "stage": "SFT",
        "model": {"uri": "s3://models/tiny/"},
        "datasets": [{"uri": "s3://data/tiny/train.jsonl", "format": "Alpaca"}],
        "tuning": {"method": "LoRA", "lora": {"rank": 4, "alpha": 8, "dropout": 0.05}},
        "training": {
            "maxSteps": 20,
            "globalBatchSize": 4,
            "microBatchSize": 1,
            "maxLength": 128,
            "learningRate": 0.001,
            "loggingSteps": 1,
        },
        "checkpoint": {"everySteps": 5},
        "output": {"uri": f"s3://runs/{namespace}/{name}/"},
        "workers": {
            "nodes": 1,
            "resources": {
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"memory": "3Gi"},
            },
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            "terminationGracePeriodSeconds": 30,
        },
        "storage": {"secretName": "s3-credentials"},
    }
    return {
        "apiVersion": "llmtrain.dev/v1alpha1",
        "kind": "LLMTrainRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": merged(spec, changes or {}),
    }
