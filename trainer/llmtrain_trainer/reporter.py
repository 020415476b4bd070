"""Tells the operator how far training is, from a daemon thread; training never waits for it.

Only the newest report counts, so there is one slot and no queue. The operator may be down, hang,
change its certificate or refuse: the thread tries again, and what is lost is old news.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmtrain_api.layout import CA_FILE_NAME, CA_FOLDER, TOKEN_FILE
from llmtrain_api.progress import Report

TIMEOUT_SECONDS = 3.0
"""For each step of a post: connect, send, answer."""
_LEAST_PAUSE = 2.0
_MOST_LETTERS = 256  # Of `message`, as its model says; `model_copy` does not check.
_MOST_PAUSE = 30.0
_SIGN_OF_LIFE = 30.0  # A report goes out at least so often, so that silence means trouble.


class Reporter:
    """Posts the newest report to `url`; with an empty `url` it only keeps it."""

    def __init__(
        self,
        url: str,
        first: Report,
        *,
        say: Callable[[str], None],
        token_file: Path = Path(TOKEN_FILE),
        ca_file: Path = Path(CA_FOLDER) / CA_FILE_NAME,
        least_pause: float = _LEAST_PAUSE,
    ) -> None:
        self._url = url
        self._say = say
        self._token_file = token_file
        self._ca_file = ca_file
        self._least_pause = least_pause
        self._report = first
        self._version = 1
        self._acknowledged = 0
        self._closing = False
        self._condition = threading.Condition()
        self._trouble = ""
        if url:
            threading.Thread(target=self._run, name="reporter", daemon=True).start()

    @property
    def report(self) -> Report:
        """The newest report."""
        return self._report

    def update(self, **changes: Any) -> None:
        """Changes fields of the report; returns at once."""
        if "message" in changes:
            changes["message"] = changes["message"][:_MOST_LETTERS]
        with self._condition:
            changed = self._report.model_copy(update=changes)
            if changed != self._report:
                self._report = changed
                self._version += 1
                self._condition.notify_all()

    def close(self, timeout: float) -> bool:
        """Returns whether the newest report was acknowledged, waiting at most `timeout` seconds."""
        if not self._url:
            return True
        with self._condition:
            self._closing = True
            self._condition.notify_all()
            return self._condition.wait_for(
                lambda: self._acknowledged == self._version, timeout=timeout
            )

    def _run(self) -> None:
        pause = self._least_pause
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._news, timeout=_SIGN_OF_LIFE)
                version, report = self._version, self._report
            if self._post(report):
                pause = self._least_pause
                with self._condition:
                    self._acknowledged = version
                    self._condition.notify_all()
            else:
                pause = min(2 * pause, _MOST_PAUSE)
            self._rest(pause)

    @property
    def _news(self) -> bool:
        return self._acknowledged != self._version

    def _rest(self, seconds: float) -> None:
        """Pauses, but not for long once the end is near."""
        deadline = time.monotonic() + seconds
        with self._condition:
            while (left := deadline - time.monotonic()) > 0:
                if self._closing and left > self._least_pause:
                    deadline = time.monotonic() + self._least_pause
                    continue
                self._condition.wait(left)
                if self._closing:
                    return

    def _post(self, report: Report) -> bool:
        try:
            status = post(self._url, report, self._token_file, self._ca_file)
        except (OSError, http.client.HTTPException) as error:
            return self._note(f"{type(error).__name__}: {error}")
        except Exception:  # Whatever it is: without this thread the operator hears nothing more.
            return self._note(traceback.format_exc().rstrip())
        return self._note("" if status < 300 else f"it answers with status {status}")

    def _note(self, trouble: str) -> bool:
        """Says once when the operator cannot be told, and once when it can again."""
        if bool(trouble) != bool(self._trouble):
            self._say(
                f"the operator cannot be told of progress, training goes on: {trouble}"
                if trouble
                else "the operator is told of progress again"
            )
        self._trouble = trouble
        return not trouble


def post(url: str, report: Report, token_file: Path, ca_file: Path) -> int:
    """Posts one report; returns the HTTP status.

    The token and the certificate authority are read each time, since both change in a pod's life.

    Raises:
        OSError: The operator cannot be reached, or its certificate is not trusted.
        HTTPException: It does not speak HTTP.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file.exists() else None)
        connection = http.client.HTTPSConnection(
            parts.netloc, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json"}
    if token_file.exists():
        headers["Authorization"] = f"Bearer {token_file.read_text(encoding='utf-8').strip()}"
    try:
        body = report.model_dump_json(by_alias=True, exclude_none=True)
        connection.request("POST", parts.path or "/", body, headers)
        response = connection.getresponse()
        response.read(65536)
        return response.status
    finally:
        connection.close()
