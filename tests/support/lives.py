"""The life of a run in a fake cluster, in steps that several tests take."""

from __future__ import annotations

import json
from typing import Any

from cluster_fake import START
from world import World

from llmtrain_api.exits import EXIT_POLICIES, ExitClass


def last_words(exit_class: ExitClass, node: int = 0, at: float = START, **fields: Any) -> str:
    words = {
        "exitClass": exit_class,
        "message": f"it was {exit_class}",
        "node": node,
        "time": f"2027-01-15T08:{int(at - START) // 60:02}:{int(at - START) % 60:02}Z",
        **fields,
    }
    return json.dumps(words)


async def fail_attempt(
    world: World, number: int, exit_class: ExitClass = ExitClass.INTERNAL, **fields: Any
) -> None:
    """Has the running attempt fail on node 0 with this class."""
    job, code = f"one-a{number}", EXIT_POLICIES[exit_class].code
    pods = world.kube.pods_of(job)
    world.kube.end_pod(pods[0], code, last_words(exit_class, **fields))
    world.kube.end_pod(pods[1], 86, last_words(ExitClass.PEER_LOST, node=1))
    if job in world.kube.names("Job"):
        world.kube.end_job(job, "Failed")
    await world.settle()


async def start(world: World, **changes: Any) -> None:
    """Applies a run and has the pods of attempt 1 run."""
    world.apply(**changes)
    await world.settle()
    world.kube.run_pods("one-a1")
    await world.settle()
