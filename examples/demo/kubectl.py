"""What the demo asks of the cluster, in the words of kubectl."""

import json
import subprocess
import sys
from typing import Any

NAMESPACE = "llmtrain-demo"
RUN = "sft-docstrings"


def kubectl(*args: str, stdin: str | None = None) -> str:
    """Runs kubectl and returns its output; where it fails, ends the demo with its words."""
    command = ["kubectl", *args]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"demo: {' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def apply(*objects: dict[str, Any]) -> None:
    """Applies objects server-side, so that no annotation repeats what is in a Secret."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))


def status(name: str) -> dict[str, Any]:
    """Returns a run's status; {} before there is one."""
    run = json.loads(kubectl("get", "llmtrainrun", name, "-n", NAMESPACE, "-o", "json"))
    return dict(run.get("status") or {})


def table(name: str) -> tuple[str, str]:
    """Returns what `kubectl get llmtrainruns` shows: the head and the run's line."""
    head, line = kubectl("get", "llmtrainruns", name, "-n", NAMESPACE).splitlines()[:2]
    return head, line


def condition(run_status: dict[str, Any], type_: str) -> dict[str, Any]:
    """Returns one condition; {} where it is not set."""
    found = (each for each in run_status.get("conditions", []) if each["type"] == type_)
    return next(found, {})
