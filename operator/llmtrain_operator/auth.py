"""Who posts progress: from a bearer token to the run whose pod holds it.

A trainer's token is projected by the kubelet with an audience of ours, so a token that a pod holds
for the API server is of no use here, and ours of no use there. The API server vouches for it
(TokenReview) and names the pod; the operator's own cache says whose pod that is. So a trainer can
speak of its own run only, without naming it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from llmtrain_api.layout import TOKEN_AUDIENCE
from llmtrain_operator.kube import KubeError

MAX_TOKEN_BYTES = 8 * 1024  # A projected token is about 1 KiB.
MAX_REMEMBERED = 4096
MAX_REVIEWS_AT_ONCE = 8
REMEMBER_SECONDS = 300.0
REMEMBER_REFUSED_SECONDS = 30.0
OTHER_AUDIENCE = f"the token is for another audience: it must be for {TOKEN_AUDIENCE}"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"

Value = TypeVar("Value")

Review = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Posts a TokenReview and returns the answer of the API server."""


@dataclass(frozen=True)
class Caller:
    """The run and attempt whose pod holds a token."""

    namespace: str
    name: str
    uid: str
    attempt: int
    pod: str


class Pods(Protocol):
    """What the operator's cache knows of pods."""

    def run_of_pod(self, namespace: str, pod_name: str, pod_uid: str) -> Caller | None:
        """Returns the run that owns a pod through its Job, by uid all the way, or None."""


class RefusedError(Exception):
    """The caller may not post. `status` is the HTTP status; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Pod:
    namespace: str
    name: str
    uid: str


class Authenticator:
    """Finds the caller behind a token; asks the API server once per token and five minutes.

    `now` is the time in seconds since 1970, as in a token's `exp`.
    """

    def __init__(self, review: Review, pods: Pods, now: Callable[[], float] = time.time) -> None:
        self._review = review
        self._pods = pods
        self._now = now
        self._known: Bounded[_Pod | RefusedError] = Bounded(MAX_REMEMBERED, now)
        self._turn = asyncio.Semaphore(MAX_REVIEWS_AT_ONCE)

    async def caller(self, authorization: str) -> Caller:
        """Returns whose pod sent the header `Authorization: Bearer <token>`.

        Raises:
            RefusedError: 401 if the token is none of a pod for us, 403 if the pod is of no run, 503
                if the API server could not be asked.
        """
        token = _token_of(authorization)
        expires = _expiry_of(token, self._now())
        # Only a hash is kept, so that a memory dump of the operator holds no tokens.
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = self._known.get(digest)
        if found is None:
            found = await self._ask(token)
            keep = REMEMBER_REFUSED_SECONDS if isinstance(found, RefusedError) else REMEMBER_SECONDS
            self._known.put(digest, found, until=min(expires, self._now() + keep))
        if isinstance(found, RefusedError):
            raise RefusedError(found.status, str(found))
        caller = self._pods.run_of_pod(found.namespace, found.name, found.uid)
        if caller is None:
            raise RefusedError(
                403,
                f"pod {found.namespace}/{found.name} belongs to no LLMTrainRun that is going on:"
                " only the pods of a run may post its progress",
            )
        return caller

    async def _ask(self, token: str) -> _Pod | RefusedError:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        try:
            async with self._turn:
                answer = await self._review(body)
        except KubeError as error:
            raise RefusedError(503, f"the token could not be reviewed: {error}") from error
        return _pod_of(answer.get("status") or {})


def _token_of(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise RefusedError(401, "no bearer token: send the pod's token in the header Authorization")
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise RefusedError(401, "the token is not one of a pod")
    return token


def _expiry_of(token: str, now: float) -> float:
    """Returns when a token ends, as it says itself; the API server has yet to vouch for it.

    A token that is not meant for us by its own words never reaches the API server.
    """
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        is_for_us, expires = TOKEN_AUDIENCE in claims["aud"], float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, RecursionError) as error:
        raise RefusedError(
            401, "the token is not one that a kubelet projects into a pod"
        ) from error
    if not is_for_us:
        raise RefusedError(401, OTHER_AUDIENCE)
    if not expires > now:  # Not `<=`, which lets NaN through.
        raise RefusedError(401, "the token has expired: read it again from its file for each post")
    return expires


def _pod_of(status: dict[str, Any]) -> _Pod | RefusedError:
    """Returns the pod that the API server vouches for, from the status of a TokenReview."""
    if not status.get("authenticated"):
        return RefusedError(401, "the API server does not know the token: it is not valid any more")
    # An authenticator that knows nothing of audiences leaves them out: that is no assurance.
    if TOKEN_AUDIENCE not in (status.get("audiences") or []):
        return RefusedError(401, OTHER_AUDIENCE)
    user = status.get("user") or {}
    account = str(user.get("username", "")).split(":")
    extra = user.get("extra") or {}
    names, uids = extra.get(POD_NAME) or [], extra.get(POD_UID) or []
    is_account = len(account) == 4 and account[:2] == ["system", "serviceaccount"]
    if not (is_account and len(names) == 1 and len(uids) == 1):
        return RefusedError(403, "the token is not bound to a pod: only pods may post progress")
    return _Pod(namespace=account[2], name=names[0], uid=uids[0])


class Bounded(Generic[Value]):
    """Values that end at a time; at most `size` of them, the oldest going first."""

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self._size = size
        self._now = now
        self._values: OrderedDict[str, tuple[Value, float]] = OrderedDict()

    def get(self, key: str) -> Value | None:
        """Returns the value of `key`, or None if there is none or its time is over."""
        value, until = self._values.get(key, (None, 0.0))
        return value if self._now() < until else None

    def put(self, key: str, value: Value, *, until: float) -> None:
        """Keeps `value` until a time in seconds."""
        self._values.pop(key, None)
        self._values[key] = (value, until)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
