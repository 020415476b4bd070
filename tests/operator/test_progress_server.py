"""The progress endpoint over real TLS on this machine; only the API server's part is played."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY
from tokens import FakePods, FakeReview, make_token

from llmtrain_api.progress import PROGRESS_PATH, Report
from llmtrain_operator.auth import Authenticator, Caller
from llmtrain_operator.progress_server import BURST, MAX_BODY_BYTES, Rate, progress_app
from llmtrain_operator.server import Server, listen
from llmtrain_operator.tls import Authority, authority_in_memory

HOST = "llmtrain.llmtrain-system.svc"
GOOD: dict[str, Any] = {
    "attempt": 1,
    "activity": "Training",
    "progress": {"step": 3, "totalSteps": 9, "loss": 1.5},
}


CHECKPOINT = {"name": "3-a1r0", "step": 3, "time": "2026-01-01T00:00:00Z"}


@dataclass
class Endpoint:
    """A running endpoint and what it took."""

    authority: Authority
    server: Server
    taken: list[tuple[Caller, Report]] = field(default_factory=list)
    seconds: float = 0.0
    """Clock of the rate limit."""

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.ca_pem)

    async def post(
        self, body: Any, *, token: str | None = None, path: str = PROGRESS_PATH
    ) -> tuple[int, str]:
        """Posts as a trainer does; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {make_token() if token is None else token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://127.0.0.1:{self.server.port}{path}",
                data=data, headers=headers, ssl=self.trust(), server_hostname=HOST,
            ) as answer,
        ):  # fmt: skip
            return answer.status, await answer.text()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a connection and says nothing on it."""
        return await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self.trust(), server_hostname=HOST
        )


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    authority = authority_in_memory([HOST])
    made: Endpoint

    def accept(caller: Caller, report: Report) -> None:
        made.taken.append((caller, report))

    app = progress_app(
        Authenticator(FakeReview(), FakePods()), accept, lambda: made.seconds, body_seconds=0.2
    )
    server = await listen(
        app, 0, host="127.0.0.1", tls=authority.ssl_context(), max_connections=8, idle_seconds=1
    )
    made = Endpoint(authority, server)
    yield made
    await server.close()


def posts(result: str) -> float:
    return REGISTRY.get_sample_value("llmtrain_progress_posts_total", {"result": result}) or 0


async def test_a_report_of_a_pod_reaches_the_operator(endpoint: Endpoint) -> None:
    before = posts("accepted")
    assert await endpoint.post(GOOD) == (204, "")
    [(caller, report)] = endpoint.taken
    assert (caller.name, report.progress.step if report.progress else None) == ("sft", 3)
    assert posts("accepted") == before + 1


@pytest.mark.parametrize(
    ("token", "status", "result"),
    [
        pytest.param("", 401, "unauthenticated", id="no token"),
        pytest.param(make_token(audience="api"), 401, "unauthenticated", id="another audience"),
        pytest.param(make_token(namespace="other"), 403, "forbidden", id="another namespace"),
        pytest.param(make_token("notebook", uid="x"), 403, "forbidden", id="another pod"),
    ],
)
async def test_a_token_that_is_not_of_a_pod_of_the_run_is_refused(
    endpoint: Endpoint, token: str, status: int, result: str
) -> None:
    before = posts(result)
    got, text = await endpoint.post(GOOD, token=token)
    assert (got, endpoint.taken, posts(result)) == (status, [], before + 1)
    assert len(text) > 20


async def test_a_pod_cannot_speak_for_another_attempt(endpoint: Endpoint) -> None:
    assert await endpoint.post({**GOOD, "attempt": 2}) == (
        403, "attempt: the pod belongs to attempt 1, not 2",
    )  # fmt: skip
    assert endpoint.taken == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "Invalid JSON: EOF while parsing", id="an empty body"),
        pytest.param(b"\xff\xfe", "Invalid JSON", id="not UTF-8"),
        pytest.param(b"[" * 60_000, "Invalid JSON", id="60,000 brackets"),
        pytest.param(b"[]", "Input should be an object", id="not an object"),
        pytest.param({"attempt": 1}, "activity: Field required", id="a field missing"),
        pytest.param({**GOOD, "pod": "x"}, "pod: Extra inputs", id="an unknown field"),
        pytest.param(
            b'{"attempt":1,"activity":"Training","progress":{"step":1,"totalSteps":2,"loss":NaN}}',
            "progress.loss: Input should be a finite number", id="a loss of NaN",
        ),
        pytest.param(
            b'{"attempt":1,"activity":"Training","progress":{"step":1,"totalSteps":2,"loss":1e999}}',
            "progress.loss: Input should be a finite number", id="a loss above any float",
        ),
        pytest.param(
            {**GOOD, "progress": {"step": 10**30, "totalSteps": 9}}, "progress.step: Input should",
            id="a step that no status can hold",
        ),
        pytest.param({**GOOD, "message": "x" * 257}, "message: String should have at most 256",
                     id="a message that no status can hold"),
        pytest.param(
            {**GOOD, "progress": {"step": 1, "totalSteps": 9, "secondsPerStep": 1e308}},
            "progress.secondsPerStep: Input should be less", id="a step of 10^300 years",
        ),
        pytest.param(
            {**GOOD, "checkpoints": [{**CHECKPOINT, "time": "yesterday"}]},
            "checkpoints.0.time: Value error, not a time", id="a time that no status can hold",
        ),
        pytest.param(
            {**GOOD, "checkpoints": [{**CHECKPOINT, "time": "2026-13-01T00:00:00Z"}]},
            "checkpoints.0.time: Value error, month", id="a month 13",
        ),
        pytest.param(
            {**GOOD, "checkpoints": [CHECKPOINT] * 2},
            "checkpoints: the same name twice", id="a checkpoint twice",
        ),
        pytest.param(
            {**GOOD, "checkpoints": [{}] * 5}, "and 12 more", id="many errors at once"
        ),
    ],
)  # fmt: skip
async def test_a_malformed_report_is_told_what_is_wrong(
    endpoint: Endpoint, body: Any, message: str
) -> None:
    before = posts("malformed")
    status, text = await endpoint.post(body)
    assert (status, message in text, endpoint.taken) == (400, True, []), text
    assert len(text) <= 512
    assert posts("malformed") == before + 1


async def test_a_body_above_the_bound_is_refused_unread(endpoint: Endpoint) -> None:
    status, text = await endpoint.post(b" " * (MAX_BODY_BYTES + 1))
    assert (status, text) == (413, "a report has at most 64 KiB")


async def test_a_compressed_body_is_not_unpacked(endpoint: Endpoint) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://127.0.0.1:{endpoint.server.port}{PROGRESS_PATH}",
            data=json.dumps(GOOD), compress="gzip", ssl=endpoint.trust(), server_hostname=HOST,
            headers={"Authorization": f"Bearer {make_token()}"},
        ) as answer,
    ):  # fmt: skip
        assert (answer.status, endpoint.taken) == (400, [])


async def test_200_malformed_posts_harm_nothing(endpoint: Endpoint) -> None:
    statuses = []
    for _ in range(200):
        statuses.append((await endpoint.post(b'{"attempt": "many"}'))[0])
        endpoint.seconds += 0.1
    assert set(statuses) == {400, 429}
    endpoint.seconds += BURST
    assert (await endpoint.post(GOOD))[0] == 204
    assert len(endpoint.taken) == 1


async def test_a_pod_that_posts_too_often_is_slowed_down_alone(endpoint: Endpoint) -> None:
    statuses = [(await endpoint.post(GOOD))[0] for _ in range(BURST + 1)]
    assert statuses == [204] * BURST + [429]
    endpoint.seconds += 1
    assert [(await endpoint.post(GOOD))[0] for _ in range(2)] == [204, 429]


async def test_a_body_that_does_not_come_is_given_up(endpoint: Endpoint) -> None:
    reader, writer = await endpoint.open()
    head = (
        f"POST {PROGRESS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        f"Authorization: Bearer {make_token()}\r\n\r\n"
    )
    writer.write(head.encode() + b'{"attempt"')
    answer = await asyncio.wait_for(reader.read(4096), 2)
    assert answer.startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_client_that_goes_away_in_mid_body_is_no_error(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await endpoint.open()
    head = (
        f"POST {PROGRESS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        f"Authorization: Bearer {make_token()}\r\n\r\n"
    )
    with caplog.at_level(logging.INFO):
        writer.write(head.encode() + b'{"attempt"')
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.3)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert (await endpoint.post(GOOD))[0] == 204


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /v1alpha1/progress HTTP/1.1\r\nHost: x\r\nX-Slow: ", id="half a head"),
    ],
)
async def test_a_client_that_keeps_the_server_waiting_is_cut_off(
    endpoint: Endpoint, sent: bytes
) -> None:
    reader, writer = await endpoint.open()
    writer.write(sent)
    for _ in range(30):
        await asyncio.sleep(0.1)
        if reader.at_eof():
            break
        writer.write(b"a" if sent else b"")  # A byte now and then must not keep it alive.
    assert reader.at_eof()
    writer.close()


async def test_connections_above_the_bound_are_closed_and_room_comes_back(
    endpoint: Endpoint,
) -> None:
    held = [await endpoint.open() for _ in range(8)]
    reader, writer = await endpoint.open()
    assert await asyncio.wait_for(reader.read(1), 2) == b""
    assert not any(one.at_eof() for one, _ in held), "closed for their number, not for idling"
    for _, one in [*held, (reader, writer)]:
        one.close()
    await asyncio.sleep(0.05)
    assert (await endpoint.post(GOOD))[0] == 204


async def test_another_path_is_not_found(endpoint: Endpoint) -> None:
    assert (await endpoint.post(GOOD, path="/v1beta1/progress"))[0] == 404


async def test_a_client_that_does_not_know_the_authority_does_not_connect(
    endpoint: Endpoint,
) -> None:
    strange = authority_in_memory([HOST]).ca_pem
    context = ssl.create_default_context(cadata=strange)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            "127.0.0.1", endpoint.server.port, ssl=context, server_hostname=HOST
        )


async def test_a_server_that_is_closed_lets_its_port_go() -> None:
    authority = authority_in_memory([HOST])
    app = progress_app(Authenticator(FakeReview(), FakePods()), lambda caller, report: None)
    server = await listen(app, 0, host="127.0.0.1", tls=authority.ssl_context())
    _, hanging = await Endpoint(authority, server).open()
    await asyncio.wait_for(server.close(), 5)
    hanging.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


def test_the_rate_forgets_the_oldest_of_too_many_callers() -> None:
    rate = Rate(1.0, 1, 2, lambda: 0.0)
    assert [rate.allows(key) for key in "aabcd"] == [True, False, True, True, True]
    assert rate.allows("a")
    assert not rate.allows("d")
