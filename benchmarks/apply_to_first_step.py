"""Seconds from `kubectl apply` to the first optimizer step, split by what they go into.

Two nodes, the tiny model; five runs, the image already on the nodes. What the cluster does is seen
by polling the API server; what the trainer does is told by the time stamps of node 0's log.

    python -m benchmarks.apply_to_first_step
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import cluster
import tiny

ROUNDS = 5
MARKS = (
    ("fetch", "checking the model and the rows"),
    ("import", "turning rows into tokens"),
    ("rendezvous", "loading the model"),
    ("load", "resolved:"),
    ("first step", "step 1/"),
)
"""What a line in node 0's log ends, in order; `fetch` begins when the container runs."""


def _pods(namespace: str) -> list[dict[str, Any]]:
    return cluster.list_of("pods", namespace)


def _when(look: Any) -> float:
    """Polls until `look()` is true; returns the moment."""
    while not look():
        time.sleep(0.05)
    return time.time()


def _log_times(namespace: str, pod: str) -> list[tuple[float, str]]:
    """Returns the lines of a pod's log with the kubelet's time stamps, in seconds."""
    text = cluster.kubectl("logs", "--timestamps", "-n", namespace, pod, "-c", "trainer").stdout
    lines = (line.split(" ", 1) for line in text.splitlines() if " " in line)
    return [(_seconds(stamp), rest) for stamp, rest in lines]


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp()


def _measure(number: int) -> dict[str, float]:
    """Runs once; returns the seconds of each part."""
    namespace = f"bench-start-{number}-{uuid.uuid4().hex[:5]}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.apply(cluster.secret(namespace))
    changes = {"workers": {"nodes": 2}, "training": {"maxSteps": 2}}
    manifest = cluster.run_manifest(namespace, "start", changes)
    begin = time.time()
    cluster.apply(manifest)
    scheduled = _when(
        lambda: sum(bool(pod["spec"].get("nodeName")) for pod in _pods(namespace)) == 2
    )
    running = _when(lambda: [p["status"]["phase"] for p in _pods(namespace)] == ["Running"] * 2)
    cluster.wait_finished(namespace, "start")
    pod = next(p["metadata"]["name"] for p in _pods(namespace) if "-a1-0-" in p["metadata"]["name"])
    parts = {"schedule": scheduled - begin, "image": running - scheduled}
    last = running
    for title, mark in MARKS:
        moment = next(stamp for stamp, line in _log_times(namespace, pod) if mark in line)
        parts[title] = max(moment - last, 0.0)
        last = max(moment, last)
    parts["total"] = last - begin
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    return parts


def main() -> None:
    """Prints each round and the medians."""
    tiny.upload(cluster.s3_client())
    rounds = []
    for number in range(ROUNDS):
        rounds.append(_measure(number))
        if number == 0:
            print("".join(f"{title:>12}" for title in rounds[0]))
        print("".join(f"{value:>12.2f}" for value in rounds[-1].values()), flush=True)
    medians = {title: statistics.median(r[title] for r in rounds) for title in rounds[0]}
    print("".join(f"{value:>12.2f}" for value in medians.values()) + "  median, seconds")
    print(json.dumps({title: round(value, 2) for title, value in medians.items()}))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr}")
