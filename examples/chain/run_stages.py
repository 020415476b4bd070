"""Applies the four runs of the chain, each when the one before it has finished.

    PYTHONPATH=examples/demo python examples/chain/run_stages.py

Can be repeated at any time: what an earlier chain left is removed first, in the cluster and in S3.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import folders
import places
from kubectl import NAMESPACE, condition, status, table
from train import Screen, aligned, apply_run, clear_earlier_run, prepare_namespace, remark_on

MANIFESTS = Path("examples/chain")
LOOK_EVERY = 2.0  # Seconds.
PATIENCE = "30m"


def wait_command(name: str) -> list[str]:
    """Returns the command that ends when a run has finished, either way."""
    finished = ["kubectl", "wait", "--for=condition=Finished", f"llmtrainrun/{name}"]
    return [*finished, "-n", NAMESPACE, f"--timeout={PATIENCE}"]


def wait_for(name: str) -> None:
    """Waits until a run has finished and shows it meanwhile; ends the chain if it did not."""
    command = wait_command(name)
    print(f"$ {' '.join(command)}")
    print(aligned(*table(name))[0])
    screen = Screen()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as waiting:
        try:
            while waiting.poll() is None:
                screen.show(aligned(*table(name))[1], remark_on(status(name)), last=False)
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            waiting.terminate()
            sys.exit(f"\nchain: left; the run goes on: kubectl get ltr -n {NAMESPACE} -w")
    screen.show(aligned(*table(name))[1], "", last=True)
    if waiting.returncode:
        sys.exit(f"chain: not finished after {PATIENCE}: kubectl describe ltr {name}")


def check_success(name: str) -> None:
    """Ends the chain, with the operator's words, if a finished run did not succeed."""
    succeeded = condition(status(name), "Succeeded")
    if succeeded.get("status") != "True":
        sys.exit(
            f"chain: {name} did not succeed: {succeeded.get('message', '')}\n"
            f"kubectl logs -n {NAMESPACE} -l llmtrain.dev/run={name}"
        )


def main() -> None:
    """Runs all stages, and fails with the first that fails."""
    prepare_namespace()
    for stage in reversed(places.STAGES):
        clear_earlier_run(places.run_name(stage), places.output_of(stage))
    for stage in places.STAGES:
        begin = time.monotonic()
        apply_run(MANIFESTS / f"{stage}.yaml", folders.BUCKET_PREFIX)
        name = places.run_name(stage)
        wait_for(name)
        check_success(name)
        print(f"{name}: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
