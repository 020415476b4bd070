"""What a command tells by Kubeflow's protocol over real HTTP, and the lines made of it."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmtrain_trainer.kubeflow import MAX_BODY_BYTES, Receiver, Story, TrainerStatus
from llmtrain_trainer.progress import progress_of


def told(percent: int | None = None, **metrics: object) -> dict[str, Any]:
    """Returns a status as transformers sends it: every value as text."""
    status: dict[str, Any] = {"lastUpdatedTime": "2026-11-21T15:04:05+00:00"}
    if percent is not None:
        status["progressPercentage"] = percent
    if metrics:
        status["metrics"] = [{"name": k, "value": str(v)} for k, v in metrics.items()]
    return status


def lines(*posts: dict[str, Any]) -> list[dict[str, Any] | None]:
    clock = iter(range(0, 1000, 5))
    story = Story(now=lambda: float(next(clock)))
    return [story.line(TrainerStatus.model_validate(post)) for post in posts]


AT_12 = told(60, loss=2.5, learning_rate=1e-4, current_step=12, total_steps=20, current_epoch=0.6)
LINE_AT_12 = {
    "current_steps": 12,
    "total_steps": 20,
    "percentage": 60.0,
    "loss": 2.5,
    "lr": 1e-4,
    "epoch": 0.6,
}


@pytest.mark.parametrize(
    ("posts", "last"),
    [
        pytest.param([AT_12], LINE_AT_12, id="a step with its numbers"),
        pytest.param([told(0, total_steps=20)], None, id="the beginning, which names no step yet"),
        pytest.param([AT_12, AT_12], None, id="the same again"),
        pytest.param(
            [told(0, total_steps=20), told(100, train_loss=2.0)],
            {"current_steps": 20, "total_steps": 20, "percentage": 100.0, "train_loss": 2.0},
            id="the end, which names no step: all of them",
        ),
        pytest.param(
            [AT_12, told(50, loss=1)], None, id="a share without a step, where steps are counted"
        ),
        pytest.param(
            [told(37)],
            {"current_steps": 37, "total_steps": 100, "percentage": 37.0},
            id="a client that counts no steps",
        ),
        pytest.param(
            [told(60, loss="nan", grad_norm="inf", device="cuda", current_step=1, total_steps=2)],
            {"current_steps": 1, "total_steps": 2, "percentage": 50.0},
            id="what is no finite number is left out",
        ),
        pytest.param(
            [told(current_step=250, loss=1)],
            {"current_steps": 250, "total_steps": 0, "loss": 1.0},
            id="a client that does not know how many steps there are",
        ),
        pytest.param(
            [told(current_epoch=-1, throughput=-1, loss=1e300, current_step=1, total_steps=2)],
            {"current_steps": 1, "total_steps": 2, "percentage": 50.0},
            id="what no report to the operator can hold is left out",
        ),
        pytest.param(
            [told(current_step=1e30, total_steps=2)], None, id="a step that no report can hold"
        ),
        pytest.param(
            [told(-0, current_step=-3, total_steps=2)],
            {"current_steps": 0, "total_steps": 2, "percentage": 0.0},
            id="a step below 0",
        ),
    ],
)
def test_the_line_of_a_post(posts: list[dict[str, Any]], last: dict[str, Any] | None) -> None:
    assert lines(*posts)[-1] == last


def test_the_pace_is_told_from_the_second_post_on() -> None:
    posts = [told(current_step=step, total_steps=100) for step in (10, 20, 40)]
    paces = [line and line.get("seconds_per_step") for line in lines(*posts)]
    assert paces == [None, 0.5, pytest.approx(10 / 30)]


@dataclass
class Client:
    """Posts as `urllib` does in transformers' callback."""

    receiver: Receiver
    log: Path

    def post(self, body: Any, *, path: str = "", token: str | None = None) -> tuple[int, str]:
        given = self.receiver.environment
        if token is None:
            token = Path(given["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text()
        request = urllib.request.Request(
            given["KUBEFLOW_TRAINER_SERVER_URL"] + path,
            data=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    log = tmp_path / "trainer_log.jsonl"
    receiver = Receiver(log, tmp_path / "token")
    yield Client(receiver, log)
    receiver.close()


def test_posts_become_progress(client: Client) -> None:
    for step in (12, 16):
        status = told(60, loss=2.5, current_step=step, total_steps=20, current_epoch=0.6)
        assert client.post({"trainerStatus": status}) == (200, "")
    progress = progress_of(client.log.read_text().splitlines(), None)
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.loss) == (16, 20, 2.5)
    assert progress.epoch == 0.6
    assert progress.seconds_per_step is not None


def test_the_token_is_for_the_command_alone(client: Client) -> None:
    file = Path(client.receiver.environment["KUBEFLOW_TRAINER_SERVER_TOKEN"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert client.post({"trainerStatus": AT_12}, token="guess")[0] == 401
    assert client.post({"trainerStatus": AT_12}, token="é")[0] == 401
    assert not client.log.exists()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b"", 400, "Invalid JSON", id="an empty body"),
        pytest.param(b"[" * 60_000, 400, "Invalid JSON", id="60,000 brackets"),
        pytest.param({}, 400, "trainerStatus: Field required", id="no status"),
        pytest.param(
            {"trainerStatus": told(101)}, 400, "less than or equal to 100", id="more than all"
        ),
        pytest.param(
            {"trainerStatus": {"metrics": [{"name": "a", "value": "1"}] * 257}},
            400,
            "at most 256 items",
            id="257 metrics",
        ),
        pytest.param(
            {"trainerStatus": {"metrics": [{"name": "a", "value": 1}]}},
            400,
            "metrics.0.value: Input should be a valid string",
            id="a number that is not written as text",
        ),
        pytest.param(b" " * (MAX_BODY_BYTES + 1), 413, "at most 64 KiB", id="a body too large"),
    ],
)
def test_a_malformed_post_harms_nothing(
    client: Client, body: Any, status: int, message: str
) -> None:
    got, text = client.post(body)
    assert (got, message in text) == (status, True), text
    assert not client.log.exists()
    assert client.post({"trainerStatus": AT_12, "other": 1}) == (200, "")


def test_another_path_is_not_found(client: Client) -> None:
    assert client.post({"trainerStatus": AT_12}, path="/other")[0] == 404


def test_a_post_without_a_length_is_refused(client: Client) -> None:
    url = client.receiver.environment["KUBEFLOW_TRAINER_SERVER_URL"]
    host, _, port = url.removeprefix("http://").removesuffix("/status").partition(":")
    token = Path(client.receiver.environment["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text()
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST /status HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 411 " in connection.recv(4096)


def test_it_listens_inside_the_pod_only(client: Client) -> None:
    assert client.receiver.environment["KUBEFLOW_TRAINER_SERVER_URL"].startswith(
        "http://127.0.0.1:"
    )
