"""A thin client of the Kubernetes API that speaks plain dicts; the only module that calls it.

It stands on `kubernetes.aio`'s configuration, authentication and connection pool, and leaves its
typed models aside: they drop fields that they do not know. Every call has a timeout, and every
failure is one of the errors below.

What the operator's account may do, each of it used (`{namespace}` may be all of them):

    llmtrain.dev     llmtrainruns               list, watch, create, delete (of a schedule)
    llmtrain.dev     llmtrainruns/status        patch
    llmtrain.dev     llmtrainschedules          list, watch
    llmtrain.dev     llmtrainschedules/status   patch
    batch            jobs                       list, watch, create, delete
    core             pods                       list, watch, delete (of one stuck on a dead node)
    core             configmaps                 get, create, patch (a new authority), delete
    core             services                   get, create
    core             events                     list, create, patch
    authentication   tokenreviews               create (always cluster-wide)

ConfigMaps and Services are not watched: one is read only when its name is taken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from llmtrain_api import API_VERSION

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON."""

TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
PAGE = 500
FIELD_MANAGER = "llmtrain-operator"


@dataclass(frozen=True)
class Resource:
    """A kind of object and the path at which the API server keeps it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Returns the path of one object, or of all in a namespace (None: in all of them)."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


RUNS = Resource(API_VERSION, "LLMTrainRun", "llmtrainruns")
SCHEDULES = Resource(API_VERSION, "LLMTrainSchedule", "llmtrainschedules")
JOBS = Resource("batch/v1", "Job", "jobs")
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SERVICES = Resource("v1", "Service", "services")
EVENTS = Resource("v1", "Event", "events")
TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "TokenReview", "tokenreviews")


class KubeError(Exception):
    """The API server refused a call, or did not answer.

    KubeError
    ├── NotFoundError        the object, or its kind, does not exist
    ├── AlreadyExistsError   an object of that name is there
    ├── ConflictError        the object changed, or is not the one that was meant
    ├── InvalidError         the object cannot be: its message names the field
    ├── ForbiddenError       quota, a policy, or missing rights
    │   └── NamespaceEndsError   the namespace is being deleted and takes nothing new
    └── UnavailableError     no answer, or not now: try again
    """


class NotFoundError(KubeError):
    """The object, or its kind, does not exist."""


class AlreadyExistsError(KubeError):
    """An object of that name exists."""


class ConflictError(KubeError):
    """The object changed since it was read, or is not the one that was meant."""


class InvalidError(KubeError):
    """The API server does not take the object; the message names the field."""


class ForbiddenError(KubeError):
    """Quota, a policy, or missing rights."""


class NamespaceEndsError(ForbiddenError):
    """The namespace is being deleted: it takes nothing new, and all in it goes soon."""


class UnavailableError(KubeError):
    """The API server did not answer, or asks to come back later."""


class Kube:
    """Calls the API server. Any method may raise a `KubeError`."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = FIELD_MANAGER

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Returns one object."""
        return await self._call("GET", resource.path(namespace, name))

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[list[Object], int]:
        """Returns all objects, read in pages, and the resource version of the list."""
        items: list[Object] = []
        query = {"limit": str(PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        while True:
            page = await self._call("GET", resource.path(namespace), query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, int(metadata.get("resourceVersion") or 0)
            query["continue"] = metadata["continue"]

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Creates an object and returns it; a field that its kind does not have is an error."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._call("POST", resource.path(namespace), query, body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Object,
        *,
        subresource: str = "",
    ) -> Object:
        """Merges `body` into an object and returns it; None in `body` removes a field.

        With `metadata.resourceVersion` in `body`, an object that has changed is a ConflictError.
        """
        path = resource.path(namespace, name, subresource)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", path, query, body)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        """Deletes an object, and what it owns in the background.

        With `uid`, another object of the same name is left alone. `grace_seconds=0` removes a pod
        without waiting for its node.

        Returns:
            Whether the object was there; False if it is gone, or another one has its name.
        """
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", resource.path(namespace, name), None, body)
        except NotFoundError:
            return False
        except ConflictError:
            if uid is None:
                raise
            return False
        return True

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
    ) -> Object:
        headers = dict(self._client.default_headers)
        headers["Accept"] = "application/json"
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        url = self.configuration.host + path
        if query:
            url += "?" + urlencode(query)
        try:
            await self._client.update_params_for_auth(
                headers, None, ["BearerToken"], path, method, body
            )
            response = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=TIMEOUT
            )
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"{method} {path}: no answer: {reason}") from error
        if response.status >= 300:
            raise _error(method, path, response.status, text)
        answer: Object = json.loads(text)
        return answer


def _error(method: str, path: str, status: int, text: bytes) -> KubeError:
    """Returns our error for an answer of the API server; the message is the server's own."""
    try:
        answer = json.loads(text)
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
        causes = [cause.get("reason") for cause in (answer.get("details") or {}).get("causes", [])]
    except (ValueError, AttributeError):
        message, reason, causes = text[:500].decode(errors="replace"), "", []
    if status == 403 and "NamespaceTerminating" in causes:
        return NamespaceEndsError(message)
    kind: type[KubeError] = {
        400: InvalidError,
        403: ForbiddenError,
        404: NotFoundError,
        409: AlreadyExistsError if reason == "AlreadyExists" else ConflictError,
        422: InvalidError,
    }.get(status, UnavailableError)
    return kind(message or f"{method} {path}: HTTP status {status}")


async def load_configuration() -> Configuration:
    """Returns how to reach the API server: in a pod its service account, else KUBECONFIG.

    Raises:
        ConfigException: Neither is there.
    """
    # Without a look at ~/.netrc, which costs a third of a call's CPU; no proxy is between us.
    configuration = Configuration(client_session_kwargs={"trust_env": False})
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        await load_kube_config(client_configuration=configuration)
    return configuration
