"""A run on this machine: its inputs and outputs as files, its processes faked or real."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmtrain_api.exits import ExitClass, TerminationMessage
from llmtrain_api.runfile import RunFile
from llmtrain_trainer import launcher, torchrun
from llmtrain_trainer.node import Node
from llmtrain_trainer.stop import Stop
from llmtrain_trainer.torchrun import Place

TRAINER_TESTS = Path(__file__).parent.parent / "trainer"


@dataclass
class Laptop:
    """Inputs, outputs and scratch below one folder."""

    home: Path
    plan: dict[str, Any] = field(default_factory=lambda: {"steps": 30, "save_every": 10})

    def __post_init__(self) -> None:
        model, data = self.home / "model", self.home / "data"
        model.mkdir()
        data.mkdir()
        (model / "config.json").write_text('{"max_position_embeddings": 2048}')
        (model / "tokenizer.json").write_text("{}")
        (model / "chat_template.jinja").write_text("{{ messages }}")
        (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        rows = [{"instruction": f"question {i}", "output": f"answer {i}"} for i in range(4)]
        (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    @property
    def out(self) -> Path:
        return self.home / "out"

    def run(self, **changes: Any) -> RunFile:
        """Returns the run file, with `changes` of the spec's blocks (`training={...}`)."""
        spec: dict[str, Any] = {
            "stage": "SFT",
            "model": {"uri": f"file://{self.home}/model"},
            "datasets": [{"uri": f"file://{self.home}/data/rows.jsonl", "format": "Alpaca"}],
            "tuning": {"method": "LoRA"},
            "training": {"maxSteps": 30, "globalBatchSize": 2, "learningRate": 1e-3},
            "checkpoint": {"everySteps": 10},
            "output": {"uri": f"file://{self.out}"},
            "workers": {"terminationGracePeriodSeconds": 10},
        }
        top = {"name": "first", "uid": "", **changes.pop("top", {})}
        for block, values in changes.items():
            merged = isinstance(values, dict)
            spec[block] = {**spec.get(block, {}), **values} if merged else values
        return RunFile.model_validate({**top, "spec": spec})

    def command(self, script: str, *args: str, **changes: Any) -> RunFile:
        """Returns the run file of a command: a Python script, once on each node."""
        place = self.home / "script.py"
        place.write_text(script)
        spec: dict[str, Any] = {
            "stage": "Custom",
            "model": {"uri": f"file://{self.home}/model"},
            "datasets": [{"uri": f"file://{self.home}/data/rows.jsonl", "format": "Any"}],
            "custom": {
                "command": [sys.executable, str(place)],
                "args": list(args),
                "launcher": "None",
            },
            "checkpoint": {"everySteps": 10},
            "output": {"uri": f"file://{self.out}"},
            "workers": {"terminationGracePeriodSeconds": 10},
        }
        return RunFile.model_validate({"name": "own", "spec": {**spec, **changes}})

    def node(self, run: RunFile | None = None, index: int = 0, worker: str = "fake_worker") -> Node:
        """Returns a launcher's node, ready to launch."""
        self.write_plan()
        return Node(
            run or self.run(),
            index,
            self.home / "scratch",
            Stop(),
            termination_log=self.home / f"termination-{index}.json",
            worker_module=worker,
        )

    def write_plan(self) -> None:
        """Tells the fake processes what to do."""
        (self.home / "plan.json").write_text(json.dumps(self.plan))

    def once_training(self, action: Callable[[], None]) -> None:
        """Does `action` in the background as soon as the first step has been logged."""

        def watch() -> None:
            while not list(self.home.glob("scratch/*/node-0/work-*/trainer_log.jsonl")):
                time.sleep(0.02)
            action()

        threading.Thread(target=watch, daemon=True).start()

    def launch(self, run: RunFile | None = None, index: int = 0) -> ExitClass:
        """Runs one node's part of one attempt."""
        return launcher.launch(self.node(run, index))

    def verdict(self, index: int = 0) -> TerminationMessage:
        """Returns what the launcher left for the kubelet."""
        text = (self.home / f"termination-{index}.json").read_text()
        return TerminationMessage.model_validate_json(text)

    def checkpoints(self) -> list[str]:
        """Returns the names of the checkpoints that are whole in storage."""
        found = (self.out / "checkpoints").glob("*/manifest.json")
        return sorted(
            (path.parent.name for path in found), key=lambda name: int(name.split("-")[0])
        )

    def weights(self) -> str:
        """Returns the final weights: the fake workers write a digit for each step."""
        return (self.out / "adapter" / "adapter_model.safetensors").read_text()


def fake_command(place: Place, workdir: Path, *, port: int, worker_module: str) -> list[str]:
    """Returns a command line that stands in for torchrun's."""
    processes = place.run.spec.workers.processes_per_node
    return [
        *(sys.executable, "-S", "-E"),
        str(TRAINER_TESTS / "fake_torchrun.py"),
        str(workdir / torchrun.FAILURES),
        str(place.node * processes),
        str(processes),
        str(workdir),
    ]
