"""The reporter against an operator that works, hangs, refuses, is away, or changes its key."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmtrain_api.progress import Progress, Report
from llmtrain_trainer import reporter
from llmtrain_trainer.reporter import Reporter

FIRST = Report(attempt=1, activity="Preparing")


class Operator:
    """A small HTTP server that stands in for the operator's endpoint."""

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.reports: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.status = 200
        operator = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operator.tokens.append(self.headers["Authorization"])
                if operator.status == 200:
                    operator.reports.append(json.loads(body))
                self.send_response(operator.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                """Keeps quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def operator() -> Iterator[Operator]:
    running = Operator()
    yield running
    running.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, said: list[str]) -> Callable[[str], Reporter]:
    def start(url: str) -> Reporter:
        (tmp_path / "token").write_text("secret\n")
        return Reporter(
            url,
            FIRST,
            say=said.append,
            token_file=tmp_path / "token",
            ca_file=tmp_path / "ca.crt",
            least_pause=0.02,
        )

    return start


def test_the_newest_report_arrives_with_the_token(
    operator: Operator, make: Callable[[str], Reporter]
) -> None:
    told = make(f"http://127.0.0.1:{operator.port}/v1alpha1/progress")
    for step in range(100):
        told.update(activity="Training", progress=Progress(step=step, total_steps=100))
    assert told.close(5)
    assert operator.reports[-1]["progress"]["step"] == 99
    assert len(operator.reports) < 50  # In between, only the newest of its time was sent.
    assert set(operator.tokens) == {"Bearer secret"}


def test_what_nobody_foresaw_is_told_and_the_thread_goes_on(
    operator: Operator,
    make: Callable[[str], Reporter],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post, errors = reporter.post, [UnicodeError("strange")]

    def broken(url: str, report: Report, token_file: Path, ca_file: Path) -> int:
        if errors:
            raise errors.pop()
        return post(url, report, token_file, ca_file)

    monkeypatch.setattr(reporter, "post", broken)
    one = make(f"http://127.0.0.1:{operator.port}/progress")
    one.update(message="hello")
    while errors:
        time.sleep(0.01)
    assert one.close(5)
    assert operator.reports[-1]["message"] == "hello"
    assert "Traceback" in said[0]


def test_an_update_never_waits_for_an_operator_that_hangs(
    make: Callable[[str], Reporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        told = make(f"http://127.0.0.1:{hanging.getsockname()[1]}/")
        began = time.monotonic()
        for step in range(1000):
            told.update(progress=Progress(step=step, total_steps=1000))
        assert time.monotonic() - began < 0.5
        began = time.monotonic()
        assert not told.close(0.5)
        assert time.monotonic() - began < 1


def test_an_operator_that_comes_back_is_told_the_newest(
    make: Callable[[str], Reporter], said: list[str]
) -> None:
    away = Operator()
    port = away.port
    away.close()
    told = make(f"http://127.0.0.1:{port}/")
    told.update(activity="Training", message="while it was away")
    while not said:
        time.sleep(0.01)
    assert "training goes on: ConnectionRefusedError" in said[0]
    back = Operator(port)
    assert told.close(5)
    assert [report["message"] for report in back.reports] == ["while it was away"]
    assert said[1:] == ["the operator is told of progress again"]
    back.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_a_refusal_is_said_once_and_tried_again(
    operator: Operator, make: Callable[[str], Reporter], said: list[str], status: int
) -> None:
    operator.status = status
    told = make(f"http://127.0.0.1:{operator.port}/")
    while len(operator.tokens) < 3:
        time.sleep(0.01)
    (words,) = said
    assert words.endswith(f"training goes on: it answers with status {status}")
    operator.status = 200
    assert told.close(5)
    assert len(operator.reports) == 1


def test_a_new_token_is_used_from_the_next_post_on(
    operator: Operator, make: Callable[[str], Reporter], tmp_path: Path
) -> None:
    told = make(f"http://127.0.0.1:{operator.port}/")
    while not operator.reports:
        time.sleep(0.01)
    (tmp_path / "token").write_text("rotated")
    told.update(activity="Training")
    assert told.close(5)
    assert operator.tokens[-1] == "Bearer rotated"


def test_a_message_is_cut_to_what_a_report_may_hold(
    operator: Operator, make: Callable[[str], Reporter]
) -> None:
    told = make(f"http://127.0.0.1:{operator.port}/")
    told.update(message="x" * 1000)
    assert told.close(5)
    assert Report.model_validate(operator.reports[-1]).message == "x" * 256


def test_without_an_operator_nothing_is_sent(make: Callable[[str], Reporter]) -> None:
    told = make("")
    told.update(activity="Training")
    assert told.report.activity == "Training"
    assert told.close(0)


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Makes a key and a certificate that signs itself; leaves it in the file `name`."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / name).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / f"{name}.key").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / name, folder / f"{name}.key")
    return context


def test_a_new_certificate_is_trusted_once_its_authority_is_on_disk(
    make: Callable[[str], Reporter], tmp_path: Path, said: list[str]
) -> None:
    old, new = certificate(tmp_path, "old"), certificate(tmp_path, "new")
    (tmp_path / "ca.crt").write_bytes((tmp_path / "old").read_bytes())
    before = Operator(context=old)
    told = make(f"https://127.0.0.1:{before.port}/")
    while not before.reports:
        time.sleep(0.01)
    before.close()
    after = Operator(before.port, new)
    told.update(activity="Training")
    while not said:
        time.sleep(0.01)
    assert not after.reports
    (tmp_path / "ca.crt").write_bytes((tmp_path / "new").read_bytes())
    assert told.close(10)
    assert after.reports[-1]["activity"] == "Training"
    after.close()
