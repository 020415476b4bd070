"""A tracking server of MLflow in little: the REST calls that a run makes, over HTTP, in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]


@dataclass
class MLflowServer:
    """What the server holds. `refuses` is the status that it answers everything with."""

    url: str = ""
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Object] = field(default_factory=dict)
    metrics: list[Object] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    refuses: int = 0

    def answer(self, path: str, body: Object) -> tuple[int, Object]:
        """Returns the status and the body of the answer to a call."""
        if self.refuses:
            return self.refuses, {"error_code": "PERMISSION_DENIED", "message": "not you"}
        call = path.rpartition("/mlflow/")[2]
        match call:
            case "experiments/get-by-name":
                return self._experiment(body["experiment_name"])
            case "experiments/create":
                number = str(len(self.experiments) + 1)
                self.experiments[body["name"]] = number
                return 200, {"experiment_id": number}
            case "runs/search":
                wanted = body["filter"].partition("'")[2].rstrip("'")
                found = [run for run in self.runs.values() if wanted in _tags(run).values()]
                return 200, {"runs": found}
            case "runs/create":
                return 200, {"run": self._create(body)}
            case "runs/get":
                return 200, {"run": self.runs[body["run_id"]]}
            case "runs/log-batch":
                self._log(body)
                return 200, {}
            case "runs/update":
                info = self.runs[body["run_id"]]["info"]
                info |= {"status": body.get("status", info["status"])}
                return 200, {"run_info": info}
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": call}

    def _experiment(self, name: str) -> tuple[int, Object]:
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": name}
        experiment = {"experiment_id": self.experiments[name], "name": name}
        return 200, {"experiment": {**experiment, "lifecycle_stage": "active"}}

    def _create(self, body: Object) -> Object:
        number = f"run{len(self.runs) + 1}"
        info = {
            "run_id": number,
            "run_uuid": number,
            "run_name": body["run_name"],
            "experiment_id": body["experiment_id"],
            "status": "RUNNING",
            "start_time": 1,
            "artifact_uri": "file:///nowhere",
            "lifecycle_stage": "active",
        }
        self.runs[number] = {"info": info, "data": {"tags": body["tags"], "params": []}}
        return self.runs[number]

    def _log(self, body: Object) -> None:
        data = self.runs[body["run_id"]]["data"]
        self.metrics += body.get("metrics", [])
        data["params"] += body.get("params", [])
        fresh = {tag["key"] for tag in body.get("tags", [])}
        data["tags"] = [tag for tag in data["tags"] if tag["key"] not in fresh]
        data["tags"] += body.get("tags", [])

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Returns the steps and values of a metric, in the order in which they came."""
        return [(int(each["step"]), each["value"]) for each in self.metrics if each["key"] == name]


def _tags(run: Object) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


@contextmanager
def mlflow_server() -> Iterator[MLflowServer]:
    """Runs a server on this machine."""
    server = MLflowServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            self._answer(self.path, json.loads(self.rfile.read(length) or b"{}"))

        def _answer(self, path: str, body: Object) -> None:
            server.authorizations.add(self.headers.get("Authorization", ""))
            status, content = server.answer(path, body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keeps the tests' output short."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
