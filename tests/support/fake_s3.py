"""An S3 server in memory that can be told to misbehave; signatures are not checked, keys are."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Fault:
    """Spoils the first `times` requests that `matches` (method, path) holds for."""

    matches: Callable[[str, str], bool]
    how: str
    """`flip` a byte of the body, `cut` the body short, or `refuse` with 503."""

    times: int = 1


@dataclass
class FakeS3:
    """`url` is its endpoint; `objects` what it holds, by `bucket/key`."""

    buckets: tuple[str, ...] = ("models", "data", "runs")
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    accepted_key: str = ""
    """The only access key that is accepted; empty for any."""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"s3": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault_of(self, method: str, path: str) -> str:
        """Returns how this request goes wrong, or nothing."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.matches(method, path):
                    fault.times -= 1
                    return fault.how
        return ""


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    """Speaks what the trainer needs of S3: GET with ranges, HEAD, PUT, DELETE, ListObjectsV2."""

    protocol_version = "HTTP/1.1"
    s3: FakeS3

    def log_message(self, *arguments: Any) -> None:
        """Keeps quiet."""

    def _begin(self) -> bool:
        """Reads the request; returns whether it may go on."""
        parts = urlsplit(self.path)
        self.key = unquote(parts.path).lstrip("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        self.query = {name: value[0] for name, value in query.items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fault = self.s3.fault_of(self.command, self.key)
        used = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization") or "")
        if self.s3.accepted_key and (not used or used[1] != self.s3.accepted_key):
            return self._error(403, "InvalidAccessKeyId")
        if self.fault == "refuse":
            return self._error(503, "SlowDown")
        if self.key.partition("/")[0] not in self.s3.buckets:
            return self._error(404, "NoSuchBucket")
        return True

    def _error(self, status: int, code: str) -> bool:
        text = f"<Error><Code>{code}</Code><Message>Words.</Message></Error>"
        self._answer(status, text.encode())
        return False

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault == "cut" and status < 300:
            body = body[: len(body) // 2]
            self.close_connection = True
        if self.fault == "flip" and status < 300:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.wfile.write(body)

    def do_GET(self) -> None:
        if not self._begin():
            return
        if "list-type" in self.query:
            self._list()
            return
        data = self.s3.objects.get(self.key)
        if data is None:
            self._error(404, "NoSuchKey")
        elif self.headers.get("If-Match") not in (None, etag_of(data)):
            self._error(412, "PreconditionFailed")
        else:
            self._get(data)

    do_HEAD = do_GET  # noqa: N815

    def _get(self, data: bytes) -> None:
        headers = {"ETag": etag_of(data), "Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        limits = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if not limits:
            self._answer(200, data, **headers)
            return
        first, last = int(limits[1]), min(int(limits[2]), len(data) - 1)
        if first >= len(data):
            self._error(416, "InvalidRange")
            return
        headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
        self._answer(206, data[first : last + 1], **headers)

    def _list(self) -> None:
        bucket = self.key.rstrip("/")
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        rows, folders = "", set()
        for name, data in sorted(dict(self.s3.objects).items()):
            if not name.startswith(f"{bucket}/{prefix}"):
                continue
            key = name.removeprefix(f"{bucket}/")
            head, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            if found:
                folders.add(prefix + head + delimiter)
                continue
            rows += (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                f"<ETag>{escape(etag_of(data))}</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        for folder in sorted(folders):
            rows += f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        self._answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())

    def do_PUT(self) -> None:
        if not self._begin():
            return
        with self.s3.lock:
            exists = self.headers.get("If-None-Match") == "*" and self.key in self.s3.objects
            if not exists:
                self.s3.objects[self.key] = self.body
        if exists:
            self._error(412, "PreconditionFailed")
        else:
            self._answer(200, ETag=etag_of(self.body))

    def do_DELETE(self) -> None:
        if self._begin():
            self.s3.objects.pop(self.key, None)
            self._answer(204)
