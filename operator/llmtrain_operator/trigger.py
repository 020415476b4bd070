"""`python -m llmtrain_operator.trigger SCHEDULE`: makes a run of a schedule now.

It acts as whoever calls it, by KUBECONFIG, and needs the right to read the schedule and to create
runs; the operator has no part in it. The run belongs to the schedule: it counts for
`concurrencyPolicy` and for the history limits.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from kubernetes.aio.config.config_exception import ConfigException

from llmtrain_api.errors import ConfigError
from llmtrain_operator.kube import RUNS, SCHEDULES, Kube, KubeError, load_configuration
from llmtrain_operator.schedule_acceptance import accept_schedule
from llmtrain_operator.schedule_children import build_run, manual_run_name
from llmtrain_operator.schedule_snapshot import schedule_view


async def trigger(kube: Kube, namespace: str, schedule: str, now: float) -> str:
    """Makes a run of a schedule for this moment, and returns its name.

    `now` is the time in seconds since 1970; a second run within the same second is refused.

    Raises:
        ConfigError: The schedule cannot be carried out.
        KubeError: There is no such schedule, or the API server refuses the run.
    """
    view = schedule_view(await kube.get(SCHEDULES, namespace, schedule))
    accept_schedule(view.spec)
    name = manual_run_name(schedule, now)
    await kube.create(RUNS, namespace, build_run(view, name, now))
    return name


async def _trigger(namespace: str, schedule: str) -> str:
    kube = Kube(await load_configuration())
    try:
        return await trigger(kube, namespace, schedule, time.time())
    finally:
        await kube.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Makes a run, names it on standard output, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m llmtrain_operator.trigger", description="Makes a run of a schedule now."
    )
    parser.add_argument("schedule", help="name of the LLMTrainSchedule")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace")
    arguments = parser.parse_args(argv)
    try:
        name = asyncio.run(_trigger(arguments.namespace, arguments.schedule))
    except (ConfigError, ConfigException, KubeError) as error:
        sys.stderr.write(f"llmtrain: no run was made: {error}\n")
        return 1
    sys.stdout.write(f"llmtrainrun.llmtrain.dev/{name} created\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
