"""Seconds from the creation of a run to its child Job, for 1, 50 and 500 runs at once.

The runs select a node that does not exist, so that no pod starts and the operator alone is
measured. A Job counts from the moment that the API server shows it to a watch. API writes are
counted in the API server's audit log, CPU and memory are the operator's own.

    python -m benchmarks.create_to_child
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import statistics
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

SIZES = (1, 50, 500)
SYSTEM = "llmtrain-system"
USER = f"system:serviceaccount:{SYSTEM}:llmtrain"
WRITES = {"create", "update", "patch", "delete"}
PEER = {1: (0.05, 0.05), 50: (1.1, 1.9), 500: (10.2, 17.2)}
"""Kubeflow Trainer 2.3 with JobSet 0.12 on 2 cores of this kind: p50 and p99 in seconds."""
PEER_CPU_MS, PEER_WRITES, PEER_MEMORY_MIB = 17, 10, 134


def _kubectl(*args: str, stdin: str | None = None) -> str:
    return subprocess.run(
        ["kubectl", "--context", "llmtrain-dev", *args],
        input=stdin, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def _session() -> tuple[aiohttp.ClientSession, str]:
    """Returns an HTTP session with the kubeconfig's client certificate, and the server's URL."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_decoded(server["certificate-authority-data"]))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
        pair.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)
    connector = aiohttp.TCPConnector(ssl=context, limit=64)
    return aiohttp.ClientSession(connector=connector), server["server"]


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


def _manifest(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "llmtrain.dev/v1alpha1",
        "kind": "LLMTrainRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "stage": "SFT",
            "model": {"uri": "s3://models/tiny/"},
            "datasets": [{"uri": "s3://data/tiny/train.jsonl", "format": "Alpaca"}],
            "tuning": {"method": "LoRA"},
            "training": {"maxSteps": 10, "globalBatchSize": 4, "learningRate": 0.001},
            "output": {"uri": f"s3://runs/{namespace}/{name}/"},
            "workers": {"nodeSelector": {"benchmark": "no-such-node"}},
        },
    }


async def _watch_jobs(
    session: aiohttp.ClientSession, url: str, seen: dict[str, float], count: int
) -> None:
    """Notes when each Job of the namespace first shows; returns when `count` have."""
    async with session.get(f"{url}?watch=1", timeout=aiohttp.ClientTimeout(total=300)) as answer:
        async for line in answer.content:
            event = json.loads(line)
            labels = event["object"]["metadata"].get("labels", {})
            seen.setdefault(labels.get("llmtrain.dev/run", ""), time.monotonic())
            if len(seen) >= count:
                return


@dataclass(frozen=True)
class Round:
    """What `count` runs cost until 15 s after the last Job; their deletion is not part of it."""

    seconds: list[float]
    """From each run's creation to its Job, sorted."""
    cpu_seconds: float
    writes: int


async def _measure(count: int) -> Round:
    """Creates `count` runs at once."""
    begin, cpu = time.time(), _operator_metrics()["process_cpu_seconds_total"]
    namespace = f"bench-{count}-{uuid.uuid4().hex[:6]}"
    _kubectl("create", "namespace", namespace)
    session, server = _session()
    runs = f"{server}/apis/llmtrain.dev/v1alpha1/namespaces/{namespace}/llmtrainruns"
    jobs = f"{server}/apis/batch/v1/namespaces/{namespace}/jobs"
    created: dict[str, float] = {}
    seen: dict[str, float] = {}

    async def create(name: str) -> None:
        async with session.post(runs, json=_manifest(namespace, name)) as answer:
            answer.raise_for_status()
        created[name] = time.monotonic()

    async with session:
        watch = asyncio.create_task(_watch_jobs(session, jobs, seen, count))
        await asyncio.gather(*(create(f"run-{n}") for n in range(count)))
        await watch
    await asyncio.sleep(15)  # What follows the Job (status, Events) belongs to the cost of a run.
    cpu = _operator_metrics()["process_cpu_seconds_total"] - cpu
    writes = _writes_since(begin)
    _kubectl("delete", "namespace", namespace, "--timeout=10m")
    return Round(sorted(max(seen[name] - created[name], 0.0) for name in created), cpu, writes)


def _operator_metrics() -> dict[str, float]:
    """Returns CPU seconds and resident bytes as the operator's /metrics has them."""
    pod = json.loads(
        _kubectl("get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=llmtrain", "-o", "json")
    )
    name = pod["items"][0]["metadata"]["name"]
    text = _kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{name}:8080/proxy/metrics")
    rows = (line.split() for line in text.splitlines() if line.startswith("process_"))
    return {row[0]: float(row[1]) for row in rows}


def _writes_since(moment: float) -> int:
    """Counts the operator's writes in the audit log since a moment of the wall clock."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    count = 0
    for path in Path(os.environ["KUBECONFIG"]).parent.glob("audit*.log"):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                count += (
                    event["user"]["username"] == USER
                    and event["verb"] in WRITES
                    and event["requestReceivedTimestamp"] >= since
                )
    return count


def _percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, round(share * (len(values) - 1)))]


COLUMNS = (
    "runs", "p50", "p99", "peer p50", "peer p99", "ratio p50", "ratio p99",
    "CPU ms/run", "writes/run", "MiB",
)  # fmt: skip


def _row(count: int) -> tuple[float, ...]:
    """Measures one size three times; returns the medians and the cost of a run."""
    rounds = [asyncio.run(_measure(count)) for _ in range(3)]
    p50, p99 = (statistics.median(_percentile(r.seconds, s) for r in rounds) for s in (0.5, 0.99))
    peer50, peer99 = PEER[count]
    cpu_ms = statistics.median(r.cpu_seconds for r in rounds) * 1000 / count
    writes = statistics.median(r.writes for r in rounds) / count
    memory = _operator_metrics()["process_resident_memory_bytes"] / 2**20
    return (
        p50, p99, peer50, peer99, p50 / peer50, p99 / peer99, cpu_ms, writes, memory,
    )  # fmt: skip


def main() -> None:
    """Measures each size and prints a table with the peer's figures and the ratios."""
    print("create -> child Job, seconds (peer: Kubeflow Trainer 2.3 + JobSet 0.12, 2 cores)")
    print("".join(f"{title:>11}" for title in COLUMNS))
    for count in SIZES:
        print(f"{count:>11}" + "".join(f"{value:>11.2f}" for value in _row(count)), flush=True)
    print(
        f"peer at 500: {PEER_CPU_MS} ms CPU and {PEER_WRITES} writes a run, {PEER_MEMORY_MIB} MiB"
    )


if __name__ == "__main__":
    main()
