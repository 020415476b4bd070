"""Applies examples/sft-run.yaml, shows it while it trains, and tells how it ended.

    python examples/demo/train.py

Can be repeated at any time: what an earlier demo left of this run is removed first, in the cluster
and in S3, because a run whose results are there already ends at once instead of training again.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import folders
from kubectl import NAMESPACE, RUN, apply, condition, kubectl, status, table

MANIFEST = Path("examples/sft-run.yaml")
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
LOOK_EVERY = 2.0  # Seconds.
LINE_EVERY = 10.0  # Seconds between lines where the output is not a terminal.
COLUMN_WIDTH = 11
PATIENCE = 20 * 60  # Seconds.


def clear_earlier_run(name: str, output: str) -> None:
    """Removes the run of an earlier demo and its output, as soon as its pods are gone."""
    run = f"llmtrainrun/{name}"
    found = kubectl("get", run, "-n", NAMESPACE, "--ignore-not-found", "-o", "name").strip()
    if found:
        print(f"removing the run of an earlier demo: kubectl delete {run} -n {NAMESPACE}")
        kubectl("delete", run, "-n", NAMESPACE)
    pods = ("pod", "-l", f"llmtrain.dev/run={name}", "-n", NAMESPACE)
    kubectl("wait", "--for=delete", *pods, "--timeout=180s")
    client = folders.s3_client()
    keys = folders.keys_under(client, folders.RUNS_BUCKET, output)
    if keys:
        print(f"removing its output: s3://{folders.RUNS_BUCKET}/{output}")
    for key in keys:
        client.delete_object(Bucket=folders.RUNS_BUCKET, Key=key)


def prepare_namespace() -> None:
    """Makes the namespace, Pod Security `restricted` enforced, and the Secret with the keys."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAMESPACE, "labels": labels}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    values = {key: os.environ[key] for key in SECRET_KEYS if os.environ.get(key)}
    metadata = {"name": "s3-credentials", "namespace": NAMESPACE}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values})


def with_buckets(manifest: str, prefix: str) -> str:
    """Returns the manifest with `prefix` before the name of each bucket."""
    return manifest.replace("s3://", f"s3://{prefix}")


def apply_run(manifest: Path, prefix: str) -> None:
    """Applies a run, and says by which command."""
    if prefix:
        print(f"\n$ sed 's|s3://|s3://{prefix}|' {manifest} | kubectl apply -f -")
    else:
        print(f"\n$ kubectl apply -f {manifest}")
    text = with_buckets(manifest.read_text(encoding="utf-8"), prefix)
    print(kubectl("apply", "-f", "-", stdin=text), end="")


def remark_on(seen: dict[str, Any]) -> str:
    """Returns what is worth saying beside the table while nothing trains yet, such as why."""
    if condition(seen, "Finished").get("status") == "True":
        return ""
    workers = condition(seen, "WorkersReady")
    if workers.get("status") == "False":
        return f"{workers['reason']}: {workers.get('message', '')}"
    progress = seen.get("progress") or {}
    if not progress.get("step"):
        return ": ".join(filter(None, (progress.get("activity"), progress.get("message"))))
    return ""


class Screen:
    """Shows one line of a table as it changes: in place on a terminal, else line after line."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._shown_at = 0.0
        self._remark = ""

    def show(self, line: str, remark: str, *, last: bool) -> None:
        """Shows the line and what is to be said beside it; the last line is always shown."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{f'{line}  {remark}'[:width]}", end="\n" if last else "", flush=True)
            return
        if last or time.monotonic() - self._shown_at >= LINE_EVERY:
            print(line)
            self._shown_at = time.monotonic()
        if remark and remark != self._remark:
            print(f"    {remark}")
            self._remark = remark


def aligned(head: str, line: str) -> list[str]:
    """Returns a table's head and line in columns of a fixed width, whatever stands in them."""
    starts = [column.start() for column in re.finditer(r"\S+", head)]
    bounds = list(zip(starts, [*starts[1:], None], strict=True))
    widths = [max(len(head[start:end]), COLUMN_WIDTH) for start, end in bounds]
    return [
        "".join(
            row[start:end].strip().ljust(width)
            for (start, end), width in zip(bounds, widths, strict=True)
        ).rstrip()
        for row in (head, line)
    ]


def watch() -> dict[str, Any]:
    """Shows the run's line of `kubectl get llmtrainruns` until it ends; returns its status."""
    print(f"\n$ kubectl get llmtrainruns -n {NAMESPACE}")
    print(aligned(*table(RUN))[0])
    screen, deadline = Screen(), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen = status(RUN)
        finished = condition(seen, "Finished").get("status") == "True"
        screen.show(aligned(*table(RUN))[1], remark_on(seen), last=finished)
        if finished:
            return seen
        time.sleep(LOOK_EVERY)
    sys.exit(f"\ndemo: not finished after {PATIENCE // 60} minutes: kubectl describe ltr {RUN}")


def sections(text: str, *, without: set[str]) -> str:
    """Returns the status and the events of `kubectl describe`, without some parts of the status."""
    kept, keep, left_out = [], False, False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        name = line.strip().split(":")[0]
        if indent == 0:
            keep, left_out = name in ("Status", "Events"), False
        elif indent == 2:
            left_out = name in without
        if keep and not left_out:
            kept.append(line)
    return "\n".join(kept)


def tell(seen: dict[str, Any]) -> None:
    """Prints how the run ended: conditions, one a line, then what `kubectl describe` says."""
    print("Conditions:")
    for each in seen.get("conditions", []):
        words = f"  {each['type']:<14}{each['status']:<9}{each['reason']:<18}"
        print((words + each.get("message", "")).rstrip())
    print(f"\n$ kubectl describe llmtrainrun {RUN} -n {NAMESPACE}   (without spec and conditions)")
    print(
        sections(kubectl("describe", "llmtrainrun", RUN, "-n", NAMESPACE), without={"Conditions"})
    )


def main() -> None:
    """Trains, and fails where training did."""
    print(f"namespace {NAMESPACE}: Pod Security `restricted`, Secret s3-credentials")
    prepare_namespace()
    clear_earlier_run(RUN, folders.OUTPUT)
    apply_run(MANIFEST, folders.BUCKET_PREFIX)
    try:
        seen = watch()
    except KeyboardInterrupt:
        sys.exit(f"\ndemo: left; the run goes on: kubectl get llmtrainruns -n {NAMESPACE} -w")
    tell(seen)
    if condition(seen, "Succeeded").get("status") != "True":
        sys.exit(
            f"demo: the run did not succeed: kubectl logs -n {NAMESPACE} -l llmtrain.dev/run={RUN}"
        )
    print("\nIn S3:")
    for name, uri in sorted((seen.get("artifacts") or {}).items()):
        print(f"  {name:<10}{uri}")


if __name__ == "__main__":
    main()
