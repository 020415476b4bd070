"""The endpoint to which trainers push their progress, over TLS.

What comes in is checked three times before the operator believes it: the pod (`auth`), how often
it speaks, and what it says (`Report`). Nothing is written from here: `accept` puts the report where
the next reconcile of the run finds it, and it replaces one that has not been written yet.

The answers: 204 taken; 400 and 413 not a report; 401 not a token for us; 403 not a pod of that
attempt; 408 too slow; 429 too often; 503 the API server could not be asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web
from pydantic import ValidationError

from llmtrain_api.progress import PROGRESS_PATH, Report
from llmtrain_operator.auth import Authenticator, Bounded, Caller, RefusedError
from llmtrain_operator.metrics import PROGRESS_POSTS

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 5.0
POSTS_PER_SECOND = 1.0
BURST = 10
"""Posts of one pod beyond the rate: changes of activity come close together at start and end."""
MAX_CALLERS = 16_384
MAX_MESSAGE = 512
ERRORS_TOLD = 3

Accept = Callable[[Caller, Report], None]


def progress_app(
    authenticator: Authenticator,
    accept: Accept,
    now: Callable[[], float] = time.monotonic,
    body_seconds: float = BODY_SECONDS,
) -> web.Application:
    """Returns the application of the endpoint.

    Args:
        authenticator: Finds the run behind a token.
        accept: Takes a report of a run's latest attempt; must not block and must not raise.
        now: Monotonic clock in seconds.
        body_seconds: How long a body may take to arrive.
    """
    rate = Rate(POSTS_PER_SECOND, BURST, MAX_CALLERS, now)

    async def take(request: web.Request) -> None:
        caller = await authenticator.caller(request.headers.get("Authorization", ""))
        if not rate.allows(f"{caller.namespace}/{caller.pod}"):
            raise RefusedError(
                429, f"more than {POSTS_PER_SECOND:g} report a second: send the newest only"
            )
        report = await _read_report(request, body_seconds)
        if report.attempt != caller.attempt:
            raise RefusedError(
                403, f"attempt: the pod belongs to attempt {caller.attempt}, not {report.attempt}"
            )
        accept(caller, report)

    async def post(request: web.Request) -> web.Response:
        try:
            await take(request)
        except RefusedError as error:
            return _answer(error.status, str(error))
        return _answer(204)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes([web.post(PROGRESS_PATH, post)])
    return app


class Rate:
    """Allows each key `per_second` calls in the long run and `burst` at once.

    Kept as the one time at which the key would have its whole burst again; keys that have it are
    forgotten first.
    """

    def __init__(
        self, per_second: float, burst: int, max_keys: int, now: Callable[[], float]
    ) -> None:
        self._seconds_each = 1 / per_second
        self._slack = burst / per_second
        self._now = now
        self._whole_at: Bounded[float] = Bounded(max_keys, now)

    def allows(self, key: str) -> bool:
        """Takes one call off the allowance of `key`; false if there is none left."""
        now = self._now()
        whole_at = max(self._whole_at.get(key) or 0.0, now) + self._seconds_each
        if whole_at - now > self._slack:
            return False
        self._whole_at.put(key, whole_at, until=whole_at)
        return True


async def _read_report(request: web.Request, seconds: float) -> Report:
    try:
        async with asyncio.timeout(seconds):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RefusedError(413, f"a report has at most {MAX_BODY_BYTES // 1024} KiB") from error
    except TimeoutError as error:
        raise RefusedError(408, f"the body took longer than {seconds:g} s") from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise RefusedError(400, f"the body ended early: {error}") from error
    try:
        return Report.model_validate_json(body)
    except ValidationError as error:
        raise RefusedError(400, _explain(error)) from error


def _explain(error: ValidationError) -> str:
    """Returns the first few errors as `field: what is wrong`, without the values that were sent."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        ": ".join(filter(None, [".".join(str(part) for part in one["loc"]), one["msg"]]))
        for one in found[:ERRORS_TOLD]
    ]
    if len(found) > ERRORS_TOLD:
        lines.append(f"and {len(found) - ERRORS_TOLD} more")
    return "; ".join(lines)[:MAX_MESSAGE]


_RESULTS = {401: "unauthenticated", 403: "forbidden", 429: "throttled", 503: "unavailable"}


def _answer(status: int, text: str = "") -> web.Response:
    """Counts a post by its result and returns what is answered, in plain text."""
    result = "accepted" if status < 400 else _RESULTS.get(status, "malformed")
    PROGRESS_POSTS.labels(result=result).inc()
    return web.Response(status=status, text=text)
