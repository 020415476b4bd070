"""How far a command is, by Kubeflow's status protocol, which transformers speaks by itself.

Its `KubeflowCallback` posts to KUBEFLOW_TRAINER_SERVER_URL at most every 5 s, from within a step:

    {"trainerStatus": {"progressPercentage": 60, "metrics": [{"name": "loss", "value": "2.1"}]}}

The launcher itself takes the posts, on the loopback address of its pod, and writes each as a line
of the training log. So a command never waits for the operator, and says what the other stages say.
"""

from __future__ import annotations

import hmac
import json
import math
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from llmtrain_api.base import ApiModel

MAX_BODY_BYTES = 64 * 1024
"""Of a post, as at Kubeflow's own server."""
PATH = "/status"
_BODY_SECONDS = 5.0
_POSTS_OF_THE_PACE = 20
_MOST_ERRORS = 3
_MOST = 1e15
"""Of any number, so that each stays one that a report to the operator can hold."""

_Text = Annotated[str, Field(max_length=256)]


class _Told(ApiModel):
    """Base of what a client tells; what a later version of the protocol adds is passed over."""

    model_config = ConfigDict(extra="ignore")


class Metric(_Told):
    """A number by its name, written as text."""

    name: _Text
    value: _Text


class TrainerStatus(_Told):
    """How far training is."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    metrics: Annotated[tuple[Metric, ...], Field(max_length=256)] = ()

    def numbers(self) -> dict[str, float]:
        """Returns the metrics that are finite numbers, and not out of all proportion."""
        found = {}
        for metric in self.metrics:
            try:
                value = float(metric.value)
            except ValueError:
                continue  # A text, such as the name of a device: no curve is made of it.
            if math.isfinite(value) and abs(value) <= _MOST:
                found[metric.name] = value
        return found


class Post(_Told):
    """The body of a post."""

    trainer_status: TrainerStatus


_OUR_NAMES = {"learning_rate": "lr", "current_epoch": "epoch"}
_COUNTS = ("current_step", "total_steps")
_LONGEST = {"epoch": 1e6, "seconds_per_step": 1e6, "throughput": _MOST}
"""What a report to the operator takes only from 0 to this."""


class Story:
    """Makes lines of the training log of what was told. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._total: int | None = None
        self._seen: deque[tuple[float, int]] = deque(maxlen=_POSTS_OF_THE_PACE)
        self._last: dict[str, Any] = {}

    def line(self, told: TrainerStatus) -> dict[str, Any] | None:
        """Returns the line of one post, or nothing where it adds nothing to the one before."""
        numbers = told.numbers()
        step = self._step(told, numbers)
        if step is None:
            return None
        total = self._total_for(numbers)
        line: dict[str, Any] = {
            _OUR_NAMES.get(name, name): value
            for name, value in numbers.items()
            if name not in _COUNTS
        }
        for name, most in _LONGEST.items():
            if not 0 <= line.get(name, 0) <= most:
                del line[name]
        line |= {
            "current_steps": step,
            "total_steps": total,
        }
        if total:
            line["percentage"] = round(100 * step / total, 2)
        if line == self._last:
            return None
        self._last = line
        pace = self._seconds_per_step(step)
        return line if pace is None else {**line, "seconds_per_step": pace}

    def _step(self, told: TrainerStatus, numbers: dict[str, float]) -> int | None:
        """Returns the step that training has come to, where a post says it.

        The last post of transformers has no step but 100 %; a client that never counts steps is
        taken to count per cent.
        """
        if numbers.get("total_steps", 0) > 0:
            self._total = int(numbers["total_steps"])
        if "current_step" in numbers:
            return max(0, int(numbers["current_step"]))
        if self._total is None:
            return told.progress_percentage
        return self._total if told.progress_percentage == 100 else None

    def _total_for(self, numbers: dict[str, float]) -> int:
        """Returns the steps in all: 0 where only the step is known, 100 where it is per cent."""
        if self._total is not None:
            return self._total
        return 0 if "current_step" in numbers else 100

    def _seconds_per_step(self, step: int) -> float | None:
        self._seen.append((self._now(), step))
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        if last_step <= first_step:
            return None
        return (last_time - first_time) / (last_step - first_step)


class Receiver:
    """Takes the posts of the command's processes, and of nobody else, until it is closed."""

    def __init__(self, log: Path, token_file: Path) -> None:
        """Takes the training log to write, and where the token of the command is left."""
        self._log = log
        self._token_file = token_file
        self._token = secrets.token_urlsafe(32)
        token_file.touch(mode=0o600)
        token_file.write_text(self._token, encoding="utf-8")
        self._story = Story()
        self._lock = threading.Lock()
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, name="kubeflow", daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a client finds this server."""
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": f"http://127.0.0.1:{self._server.port}{PATH}",
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(self._token_file),
        }

    def close(self) -> None:
        """Takes no more posts."""
        self._server.shutdown()
        self._server.server_close()

    def knows(self, authorization: str) -> bool:
        """Tells whether a header `Authorization` has the token."""
        return hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode())

    def take(self, body: bytes) -> str:
        """Writes what a post says to the log; returns what is wrong with it, or nothing."""
        try:
            told = Post.model_validate_json(body).trainer_status
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]
            return "; ".join(
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in faults
            )
        with self._lock:
            line = self._story.line(told)
            if line is not None:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        return ""


class _Server(ThreadingTCPServer):
    """Not http.server's, which asks the DNS for its own name."""

    daemon_threads = True

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = receiver
        self.port: int = self.socket.getsockname()[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a client that went away: a status is lost, and the next one comes."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    timeout = _BODY_SECONDS
    server: _Server

    def do_POST(self) -> None:
        status, text = self._answer()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def _answer(self) -> tuple[int, str]:
        receiver, length = self.server.receiver, self.headers.get("Content-Length", "")
        if self.path != PATH:
            return 404, f"post to {PATH}"
        if not receiver.knows(self.headers.get("Authorization", "")):
            return 401, "send the token in the file KUBEFLOW_TRAINER_SERVER_TOKEN as bearer token"
        if not length.isdecimal():
            return 411, "send a Content-Length"
        if int(length) > MAX_BODY_BYTES:
            return 413, f"a status has at most {MAX_BODY_BYTES // 1024} KiB"
        problem = receiver.take(self.rfile.read(int(length)))
        return (400, problem) if problem else (200, "")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing: standard error is the log of the run."""
