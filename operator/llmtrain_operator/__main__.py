"""`python -m llmtrain_operator`: puts the parts together, runs them, and ends them in order.

    watch (kopf) ──► cache ──► queue ──► reconciler ──► API server
    lists, reports ───┘          │
    health and metrics, progress endpoint

The process is cheap to start again: all that matters is in the cluster. So whatever breaks in a
way that was not foreseen ends it, and its Deployment starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from kubernetes.aio.config.config_exception import ConfigException

from llmtrain_api import GROUP
from llmtrain_operator.app import Operator
from llmtrain_operator.kube import (
    ForbiddenError,
    Kube,
    NotFoundError,
    UnavailableError,
    load_configuration,
)
from llmtrain_operator.logs import configure_logging
from llmtrain_operator.settings import Settings, SettingsError, from_environment

log = logging.getLogger("llmtrain_operator")


async def serve(settings: Settings) -> None:
    """Runs the operator until SIGTERM or SIGINT."""
    kube = Kube(await load_configuration())
    try:
        await Operator(settings, kube).run()
    finally:
        await kube.close()


def main() -> int:
    """Runs the operator and returns the exit status."""
    try:
        settings = from_environment()
    except SettingsError as error:
        sys.stderr.write(f"llmtrain-operator: {error}\n")
        return 2
    configure_logging(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except ConfigException as error:
        log.error("no way to the API server: %s: run in a pod, or set KUBECONFIG", error)
    except NotFoundError as error:
        log.error(
            "the API server does not know all kinds of %s: %s: install the CRDs of this version,"
            " `kubectl apply --server-side -f crds/`",
            GROUP,
            error,
        )
    except ForbiddenError as error:
        log.error("a right is missing: %s: the chart's ClusterRole has it", error)
    except UnavailableError as error:
        log.error("the API server does not answer: %s", error)
    except Exception:  # The last thing that is said of it; the Deployment starts it anew.
        log.exception("a part of the operator broke")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
