"""The client against a real HTTP server that answers like an API server, well or badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from llmtrain_operator.kube import (
    CONFIG_MAPS,
    JOBS,
    PODS,
    RUNS,
    TOKEN_REVIEWS,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Kube,
    KubeError,
    NamespaceEndsError,
    NotFoundError,
    UnavailableError,
)


class Server:
    """Answers every request with `answers`, one after the other, and remembers them."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = []
        self.answers: list[tuple[int, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.requests.append(
            (
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                json.loads(text) if text else None,
            )
        )
        status, body = self.answers.pop(0) if self.answers else (200, {})
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Kube]]:
    behind = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", behind.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration(api_key={"BearerToken": "bearer secret"})
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kube = Kube(configuration)
    yield behind, kube
    await kube.close()
    await runner.cleanup()


async def test_objects_are_found_at_their_paths(server: tuple[Server, Kube]) -> None:
    behind, kube = server
    await kube.get(RUNS, "default", "one")
    await kube.get(PODS, "default", "p")
    await kube.list_all(JOBS, None, label_selector="a", field_selector="b=c")
    await kube.create(TOKEN_REVIEWS, None, {"kind": "TokenReview"})
    assert [(method, path) for method, path, *_ in behind.requests] == [
        ("GET", "/apis/llmtrain.dev/v1alpha1/namespaces/default/llmtrainruns/one"),
        ("GET", "/api/v1/namespaces/default/pods/p"),
        ("GET", "/apis/batch/v1/jobs"),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
    ]
    assert behind.requests[2][2] == {"limit": "500", "labelSelector": "a", "fieldSelector": "b=c"}
    assert all(headers["Authorization"] == "bearer secret" for *_, headers, _ in behind.requests)


async def test_a_list_is_read_in_pages(server: tuple[Server, Kube]) -> None:
    behind, kube = server
    behind.answers = [
        (200, {"items": [{"n": 1}], "metadata": {"continue": "next", "resourceVersion": "7"}}),
        (200, {"items": [{"n": 2}], "metadata": {"resourceVersion": "7"}}),
    ]
    assert await kube.list_all(PODS, "default") == ([{"n": 1}, {"n": 2}], 7)
    assert behind.requests[1][2]["continue"] == "next"


async def test_a_new_object_is_checked_strictly(server: tuple[Server, Kube]) -> None:
    behind, kube = server
    await kube.create(JOBS, "default", {"kind": "Job"})
    _, _, query, _, body = behind.requests[0]
    assert query["fieldValidation"] == "Strict"
    assert body == {"kind": "Job"}


async def test_a_patch_merges(server: tuple[Server, Kube]) -> None:
    behind, kube = server
    await kube.patch(RUNS, "default", "one", {"status": {"a": None}}, subresource="status")
    method, path, _, headers, body = behind.requests[0]
    assert (method, path.rpartition("/")[2]) == ("PATCH", "status")
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert body == {"status": {"a": None}}


async def test_a_delete_means_one_object(server: tuple[Server, Kube]) -> None:
    behind, kube = server
    assert await kube.delete(PODS, "default", "p", uid="u", grace_seconds=0)
    assert behind.requests[0][4] == {
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 0,
    }


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((404, {"message": "not found"}), id="it is gone"),
        pytest.param((409, {"message": "the UID is another"}), id="another one has its name"),
    ],
)
async def test_a_delete_tells_of_what_was_not_there(
    server: tuple[Server, Kube], answer: tuple[int, dict[str, Any]]
) -> None:
    behind, kube = server
    behind.answers = [answer]
    assert not await kube.delete(PODS, "default", "p", uid="u")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        pytest.param(404, {"message": "m"}, NotFoundError, id="not found"),
        pytest.param(
            409, {"message": "m", "reason": "AlreadyExists"}, AlreadyExistsError, id="there"
        ),
        pytest.param(409, {"message": "m", "reason": "Conflict"}, ConflictError, id="changed"),
        pytest.param(422, {"message": "m"}, InvalidError, id="invalid"),
        pytest.param(400, {"message": "m"}, InvalidError, id="unknown field"),
        pytest.param(403, {"message": "m"}, ForbiddenError, id="forbidden"),
        pytest.param(
            403,
            {"message": "m", "details": {"causes": [{"reason": "NamespaceTerminating"}]}},
            NamespaceEndsError,
            id="the namespace is being deleted",
        ),
        pytest.param(429, {"message": "m"}, UnavailableError, id="too many requests"),
        pytest.param(500, {"message": "m"}, UnavailableError, id="a fault of the server"),
        pytest.param(503, "m", UnavailableError, id="a proxy's page"),
        pytest.param(401, {"message": "m"}, UnavailableError, id="a token that has just expired"),
    ],
)
async def test_refusals_become_our_errors(
    server: tuple[Server, Kube], status: int, body: Any, error: type[KubeError]
) -> None:
    behind, kube = server
    behind.answers = [(status, body)]
    with pytest.raises(error) as caught:
        await kube.get(CONFIG_MAPS, "default", "x")
    assert type(caught.value) is error
    assert str(caught.value) == "m"


async def test_an_empty_answer_still_says_what_was_asked(server: tuple[Server, Kube]) -> None:
    behind, kube = server
    behind.answers = [(502, "")]
    with pytest.raises(UnavailableError, match="GET /api/v1/namespaces/d/pods/p: HTTP status 502"):
        await kube.get(PODS, "d", "p")


async def test_no_server_is_unavailable() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    kube = Kube(configuration)
    with pytest.raises(UnavailableError, match="no answer"):
        await kube.get(PODS, "default", "p")
    await kube.close()


async def test_a_call_that_is_cancelled_ends(server: tuple[Server, Kube]) -> None:
    _, kube = server
    call = asyncio.create_task(kube.get(PODS, "default", "p"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
