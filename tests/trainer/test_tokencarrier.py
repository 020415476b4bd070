"""Tokens are made once, by node 0, and brought to every other node, attempt and run."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from laptop import Laptop, fake_command

from llmtrain_api.errors import StorageError
from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_trainer import (
    launcher,
    node,
    prepare,
    saver,
    stop,
    tokencache,
    tokencarrier,
    torchrun,
    watch,
)


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.setattr(torchrun, "command", fake_command)
    for module in (watch, node):  # Two nodes in one process would take each other's children.
        monkeypatch.setattr(module, "reap", lambda own: None)
    for module in (stop, watch, saver, prepare, tokencarrier):
        monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_PLAN", str(tmp_path / "plan.json"))
    made = Laptop(tmp_path)
    made.plan["tokens"] = 0.2
    return made


def said(laptop: Laptop, out: str = "out") -> str:
    """Returns the logs of all nodes and attempts of a run."""
    pieces = sorted((laptop.home / out).glob("attempts/*/logs/*.log"))
    return "".join(piece.read_text() for piece in pieces)


def cached(folder: Path) -> list[Path]:
    """Returns the manifests in a cache."""
    return sorted(folder.glob("*/manifest.json"))


def gang(laptop: Laptop, **changes: Any) -> RunFile:
    top = {"attempt": 1, "uid": "a"}
    return laptop.run(**{"workers": {"nodes": 2}, "top": top, **changes})


def launch_both(laptop: Laptop, run: RunFile) -> list[ExitClass]:
    nodes = [laptop.node(run, 0), laptop.node(run, 1)]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(launcher.launch, nodes))


def test_one_node_makes_the_tokens_and_the_other_gets_them(laptop: Laptop) -> None:
    assert launch_both(laptop, gang(laptop)) == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    log = said(laptop)
    assert "worker 0 has made 6000 bytes of tokens" in log
    assert "waiting for node 0 to turn the rows into tokens" in log
    assert "worker 1 has got 6000 bytes of tokens" in log
    assert len(cached(laptop.out / "tokens")) == 1


def test_the_next_attempt_finds_them(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 15, "how": 1}
    assert laptop.launch() is ExitClass.INTERNAL
    shutil.rmtree(laptop.home / "scratch")  # As in a new pod.
    assert laptop.launch() is ExitClass.SUCCESS
    log = said(laptop)
    assert log.count("worker 0 has made 6000 bytes of tokens") == 1
    assert "the tokens are there from before" in log
    assert "worker 0 has found 6000 bytes of tokens" in log


def test_another_run_finds_them_in_the_cache_that_both_name(laptop: Laptop) -> None:
    cache = {"cacheUri": f"file://{laptop.home}/cache/"}
    assert laptop.launch(laptop.run(prepare=cache)) is ExitClass.SUCCESS
    assert len(cached(laptop.home / "cache")) == 1
    other = gang(
        laptop,
        prepare=cache,
        training={"learningRate": 1e-4},
        output={"uri": f"file://{laptop.home}/other"},
    )
    assert launch_both(laptop, other) == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    log = said(laptop, "other")
    assert "worker 0 has found 6000 bytes of tokens" in log
    assert "worker 1 has found 6000 bytes of tokens" in log
    assert not (laptop.out / "tokens").exists()


def test_damaged_tokens_are_made_anew(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 15, "how": 1}
    laptop.launch()
    [manifest] = cached(laptop.out / "tokens")
    key = next(f["key"] for f in json.loads(manifest.read_text())["files"] if "tok" in f["name"])
    (manifest.parent / key).write_bytes(b"X" * 6000)
    shutil.rmtree(laptop.home / "scratch")
    assert laptop.launch() is ExitClass.SUCCESS
    log = said(laptop)
    assert "the tokens in storage are of no use" in log
    assert log.count("worker 0 has made 6000 bytes of tokens") == 2
    assert (manifest.parent / key).read_bytes() == b"tokens" * 1000


def test_the_others_do_not_wait_for_ever(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.plan["tokens"] = 60
    run = gang(laptop, prepare={"timeoutSeconds": 10})
    fast = SimpleNamespace(monotonic=lambda: 20 * time.monotonic())
    monkeypatch.setattr(tokencarrier, "time", fast)
    nodes = [laptop.node(run, 0), laptop.node(run, 1)]
    with ThreadPoolExecutor() as pool:
        first, second = (pool.submit(launcher.launch, each) for each in nodes)
        assert second.result(30) is ExitClass.CONFIG
        nodes[0].stop.at_once()
        first.result(30)
    assert laptop.verdict(1).message.startswith(
        "prepare.timeoutSeconds: node 0 did not turn the rows into tokens within 10 s: raise it"
    )


def test_the_others_notice_the_end_of_the_one_that_makes_them(laptop: Laptop) -> None:
    laptop.plan["tokens"] = 60
    nodes = [laptop.node(gang(laptop), 0), laptop.node(gang(laptop), 1)]
    with ThreadPoolExecutor() as pool:
        first, second = (pool.submit(launcher.launch, each) for each in nodes)
        while "waiting for node 0 to turn" not in _local_log(laptop, 1):
            time.sleep(0.02)
        nodes[0].stop.at_once()
        assert first.result(30) is not ExitClass.SUCCESS
        assert second.result(30) is ExitClass.PEER_LOST


def _local_log(laptop: Laptop, index: int) -> str:
    logs = laptop.home.glob(f"scratch/*/node-{index}/logs/*/node.log")
    return "".join(path.read_text() for path in logs)


def test_a_run_on_one_node_does_without_a_cache_that_fails(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise StorageError("s3://runs", "no answer", "try again")

    monkeypatch.setattr(tokencache, "store", refuse)
    assert laptop.launch() is ExitClass.SUCCESS
    assert "the tokens are not kept for later runs: s3://runs: no answer" in said(laptop)


def test_processes_that_make_no_tokens_are_not_waited_for(laptop: Laptop) -> None:
    del laptop.plan["tokens"]
    assert launch_both(laptop, gang(laptop)) == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    assert not (laptop.out / "tokens").exists()


def test_a_job_of_its_own_makes_the_tokens_and_nothing_else(laptop: Laptop) -> None:
    run = gang(laptop)
    assert laptop.launch(run.model_copy(update={"task": "Prepare"})) is ExitClass.SUCCESS
    assert laptop.verdict().message == "the rows are tokens, and these in storage"
    assert len(cached(laptop.out / "tokens")) == 1
    assert not (laptop.out / "model").exists()
    assert not list(laptop.home.glob("scratch/*/node-0/model-*/*.safetensors")), "not needed"
    shutil.rmtree(laptop.home / "scratch")
    later = run.model_copy(update={"attempt": 2})
    assert launch_both(laptop, later) == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    log = said(laptop)
    assert "worker 0 has found 6000 bytes of tokens" in log
    assert "worker 1 has found 6000 bytes of tokens" in log


def test_a_job_of_its_own_fails_where_the_tokens_cannot_be_stored(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise StorageError("s3://runs", "no answer", "try again")

    monkeypatch.setattr(tokencache, "store", refuse)
    run = laptop.run(top={"task": "Prepare"})
    assert laptop.launch(run) is ExitClass.STORAGE
    assert laptop.verdict().message == "s3://runs: no answer: try again"
