"""Tells running trainers of a new certificate authority of the progress endpoint.

The authority stands in the ConfigMap of each attempt. One that was made by an earlier operator
process is replaced at start; the kubelet brings it to the pods, and trainers read it again when a
handshake fails.
"""

from __future__ import annotations

import asyncio
import logging

from llmtrain_api.layout import CA_FILE_NAME
from llmtrain_operator.cache import Cache
from llmtrain_operator.kube import CONFIG_MAPS, Kube, KubeError, NotFoundError
from llmtrain_operator.snapshot import RunKey

log = logging.getLogger(__name__)

AT_ONCE = 4


async def publish_authority(kube: Kube, cache: Cache, pem: str) -> bool:
    """Puts `pem` into the ConfigMap of every attempt that is going on.

    Returns:
        Whether all have it; False if it has to be tried again.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def publish(key: RunKey, name: str) -> bool:
        async with turns:
            try:
                await kube.patch(CONFIG_MAPS, key.namespace, name, {"data": {CA_FILE_NAME: pem}})
            except NotFoundError:
                pass  # Yet to be made, with this authority in it.
            except KubeError as error:
                # Training goes on; only its progress is not seen.
                log.warning("%s has an old authority: %s", name, error, extra={"run": str(key)})
                return False
        return True

    return all(await asyncio.gather(*(publish(*attempt) for attempt in live_attempts(cache))))


def live_attempts(cache: Cache) -> list[tuple[RunKey, str]]:
    """Returns the runs whose latest attempt is not over, with the name of its Job and ConfigMap.

    An attempt whose Job is not known yet may have a ConfigMap that an earlier process made.
    """
    live: list[tuple[RunKey, str]] = []
    for run in cache.runs.values():
        attempts = run.status.get("attempts")
        if attempts and not attempts[-1].get("outcome"):
            live.append((run.key, str(attempts[-1]["job"])))
    return live
