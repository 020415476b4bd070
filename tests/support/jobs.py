"""Working folders with a `job.json`, as the launcher would make them, on the tiny model."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
from specs import changed

from llmtrain_trainer import workdir
from llmtrain_trainer.workdir import InputFile, Job, RankFailure

Rows = list[dict[str, Any]]


def small_spec(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns a spec of 12 LoRA steps on tiny rows, with `changes` by path in it."""
    spec: dict[str, Any] = {
        "stage": "SFT",
        "model": {"uri": "s3://models/tiny/"},
        "datasets": [{"uri": "s3://data/train.jsonl", "format": "Alpaca"}],
        "tuning": {"method": "LoRA", "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}},
        "training": {
            "maxSteps": 12,
            "globalBatchSize": 4,
            "microBatchSize": 2,
            "maxLength": 128,
            "learningRate": 5.0e-3,
            "loggingSteps": 1,
        },
        "checkpoint": {"everySteps": 6},
        "output": {"uri": "s3://runs/small/"},
    }
    for path, value in (changes or {}).items():
        spec = changed(spec, path, value)
    return spec


def input_file(path: Path, uri: str) -> InputFile:
    """Returns what the launcher says of a downloaded file."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return InputFile(uri=uri, path=str(path), size=len(content), etag="1", sha256=sha256)


def write_job(
    folder: Path,
    model: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    data: Sequence[Rows] | None = None,
    resume_from: Path | None = None,
    reference: Path | None = None,
) -> Path:
    """Writes the data and `job.json` to `folder` and returns it.

    Args:
        folder: The working folder to make.
        model: Folder of the model.
        changes: Changes of `small_spec`, by path.
        data: The rows of each of the spec's datasets. Default: 60 of tiny's rows.
        resume_from: A checkpoint.
        reference: Folder of the reference model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = small_spec(changes)
    files = []
    for number, rows in enumerate(data or [tiny.alpaca_rows(60)]):
        path = folder / f"data-{number}.jsonl"
        path.write_bytes(tiny.jsonl(rows))
        files.append(input_file(path, spec["datasets"][number]["uri"]).to_dict())
    job = {
        "run": {"name": "small", "attempt": 1, "spec": spec},
        "restart": 0,
        "node": 0,
        "modelPath": str(model),
        "referencePath": str(reference or ""),
        "datasetFiles": files,
        "resumeFrom": str(resume_from) if resume_from else None,
    }
    parsed = Job.model_validate(job)
    (folder / workdir.JOB).write_text(parsed.model_dump_json(by_alias=True))
    return folder


def run_processes(count: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs `python COMMAND` in `count` processes that torchrun starts, or in one by itself."""
    line = [sys.executable]
    if count > 1:
        line += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "default",
    }
    return subprocess.run(
        [*line, *command], env=environment, capture_output=True, text=True, check=False
    )


def start_nodes(folders: Sequence[Path]) -> list[subprocess.Popen[bytes]]:
    """Starts one process per folder, as if each were on a node of its own; output to `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank, folder in enumerate(folders):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "WORLD_SIZE": str(len(folders)),
            "LOCAL_WORLD_SIZE": "1",
        }
        command = [sys.executable, "-m", "llmtrain_trainer.worker", str(folder)]
        with (folder / "log").open("wb") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
    return processes


def training_log(folder: Path, name: str = "loss") -> dict[int, float]:
    """Returns a curve of the training log in a working folder, by step."""
    text = (folder / workdir.TRAINER_LOG).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return {line["current_steps"]: line[name] for line in lines if name in line}


def results(folder: Path) -> dict[str, Any]:
    """Returns `all_results.json` of a working folder."""
    path = folder / workdir.FINAL / "results" / "all_results.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def failure(folder: Path) -> RankFailure:
    """Returns how the first process failed."""
    return RankFailure.model_validate_json((folder / workdir.failure_file(0)).read_bytes())
