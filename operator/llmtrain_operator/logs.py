"""Logs as JSON, one object a line, with the run that a line is about as `run`."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter

NOISY = {"kopf": logging.WARNING, "aiohttp.access": logging.WARNING}


def configure_logging(level: str) -> None:
    """Sends all logs of `level` and above to standard error."""
    formatter = JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )
    formatter.default_msec_format = "%s.%03d"
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in NOISY.items():
        logging.getLogger(name).setLevel(least)
