"""The few calls that the tool itself makes to the API server, without kubectl's start-up time."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from localcluster.keys import AUTHORITY
from localcluster.settings import API_PORT, HOST_IP, KEYS


def request(path: str, body: dict[str, Any] | None = None) -> bytes:
    """Reads `path` as the administrator, or posts `body` to it.

    Raises:
        OSError: No answer, or one that is not a success.
    """
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    context.load_cert_chain(KEYS / "admin.crt", KEYS / "admin.key")
    call = urllib.request.Request(
        f"https://{HOST_IP}:{API_PORT}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    # No proxy: the address is of this machine only.
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    with urllib.request.build_opener(*handlers).open(call, timeout=5) as answer:
        data: bytes = answer.read()
    return data


def is_ready() -> bool:
    """Returns whether the API server says that it is ready."""
    try:
        return request("/readyz") == b"ok"
    except OSError:
        return False


def create(path: str, body: dict[str, Any]) -> None:
    """Creates an object unless it exists."""
    try:
        request(path, body)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # Conflict: it exists.
            raise


def exists(path: str) -> bool:
    """Returns whether there is an object at `path`."""
    try:
        request(path)
    except OSError:
        return False
    return True


def node_is_ready(name: str) -> bool:
    """Returns whether the cluster counts a node as ready."""
    try:
        node = json.loads(request(f"/api/v1/nodes/{name}"))
    except OSError:
        return False
    conditions = {one["type"]: one["status"] for one in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"
