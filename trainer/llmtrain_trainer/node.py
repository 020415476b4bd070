"""One node of the gang as the launcher sees it: what it works with, and what it tells whom."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.layout import log_segment
from llmtrain_api.progress import Checkpointed, Report
from llmtrain_api.runfile import RunFile, spec_hash
from llmtrain_trainer import owner, prepare
from llmtrain_trainer.faults import Faults
from llmtrain_trainer.lines import SegmentedUpload
from llmtrain_trainer.logs import Logs, Shipper
from llmtrain_trainer.records import CheckpointManifest, Heartbeat, Start, now, to_bytes
from llmtrain_trainer.reporter import Reporter
from llmtrain_trainer.stop import Stop, in_background
from llmtrain_trainer.storage import Folder, open_folder
from llmtrain_trainer.torchrun import WORKER_MODULE, reap
from llmtrain_trainer.verdict import Verdict, termination_message, to_json

_LAST_WORDS_SECONDS = 10.0  # For logs and the last report; less when told to stop.
_MOST_CHECKPOINTS = 5  # In a report.


class Node:
    """The run, this node's place in it, its disk, and its ways out: logs, reports, storage."""

    def __init__(
        self,
        run: RunFile,
        index: int,
        scratch: Path,
        stop: Stop,
        *,
        termination_log: Path | None,
        worker_module: str = WORKER_MODULE,
    ) -> None:
        """Args: `termination_log` is where the verdict is left, if anywhere."""
        self.run = run
        self.index = index
        self.worker_module = worker_module
        self.scratch = scratch / f"{run.name}-{spec_hash(run.spec)[:8]}" / f"node-{index}"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.stop = stop
        self.stop.grace_seconds = run.spec.workers.termination_grace_period_seconds
        self.logs = Logs(self.scratch / "logs" / str(os.getpid()))
        self.say = self.logs.say
        self.shipper = Shipper(self.say)
        self.output: Folder = open_folder(run.spec.output.uri, run.spec.storage, field="output.uri")
        self.reporter = Reporter(
            run.progress_url if index == 0 else "",
            Report(attempt=run.attempt or 1, activity="Preparing"),
            say=self.say,
        )
        self.warnings: list[str] = []
        """What went wrong beside training; it stands in the results, too."""

        self.child = 0
        """The process that spawned the training processes, whose end others look for."""

        self._termination_log = termination_log
        self._start: Start | None = None
        self._ended = threading.Event()
        self._life: Future[None] | None = None
        self._told = ""

    def tell(self, message: str) -> None:
        """Tells the operator what is being done, and the log when it is something else."""
        self.reporter.update(message=message)
        topic = message.partition(" (")[0]
        if topic != self._told:
            self._told = topic
            self.say(message)

    def meanwhile(self) -> None:
        """What PID 1 owes its container at any time: no zombies."""
        reap(own=self.child)

    def begin(self, start: Start, checkpoints: Sequence[CheckpointManifest]) -> None:
        """Notes which attempt this is; from here on logs go to storage and node 0 shows life.

        `checkpoints` are those on the line that the attempt goes on from, newest first.
        """
        self._start = start
        for manifest in reversed(checkpoints):
            self.saw_checkpoint(manifest)
        going_on = f" from checkpoint {start.resume_from}" if start.resume_from else ""
        self.say(f"attempt {start.attempt} of {self.run.name} begins{going_on}")
        upload = SegmentedUpload(
            self.logs.path, lambda segment: log_segment(start.attempt, self.index, segment)
        )
        self.shipper.add(self.output, upload)
        if self.index == 0:
            self._life = in_background(lambda: self._show_life(start))

    def _show_life(self, start: Start) -> None:
        beat, faults = 0, Faults()
        while True:
            ended = self._ended.is_set()
            heartbeat = Heartbeat(launcher=start.launcher, beat=beat, ended=ended)
            try:
                self.output.write(owner.alive_key(start.attempt), to_bytes(heartbeat))
                if not ended and not owner.still_newest(self.output, start):
                    self.say("a later attempt has begun: this one ends")
                    self.stop.at_once()
            except Exception as error:  # Whatever it is: silence would look like death.
                if words := faults.words(error):
                    self.say(f"no sign of life in storage: {words}")
            else:
                faults.healed()
            if ended:
                return
            beat += 1
            self._ended.wait(owner.BEAT_SECONDS)

    def saw_checkpoint(self, manifest: CheckpointManifest) -> None:
        """Reports a checkpoint that is whole in storage; the oldest has made room for it there."""
        seen = Checkpointed(name=manifest.name, step=manifest.step, time=manifest.created_at)
        others = [each for each in self.reporter.report.checkpoints if each.name != seen.name]
        kept = min(self.run.spec.checkpoint.keep, _MOST_CHECKPOINTS)
        self.reporter.update(checkpoints=[seen, *others][:kept])

    def end(self, verdict: Verdict) -> None:
        """Leaves the verdict with everyone who waits for it: peers, operator, kubelet, people."""
        checkpoints = self.reporter.report.checkpoints
        progress = self.reporter.report.progress
        message = termination_message(
            verdict,
            node=self.index,
            step=progress.step if progress else None,
            time=now(),
            latest_checkpoint=checkpoints[0].name if checkpoints else "",
        )
        if verdict.exit_class is ExitClass.SUCCESS:
            self.say(f"done: {verdict.message}")
        else:
            hint = EXIT_POLICIES[verdict.exit_class].hint
            self.say(f"{verdict.exit_class.value}: {verdict.message}" + (hint and f" ({hint})"))
        if self._termination_log is not None:
            self._termination_log.write_text(to_json(message), encoding="utf-8")
        self._ended.set()
        self._say_goodbye(verdict)

    def _say_goodbye(self, verdict: Verdict) -> None:
        deadline = time.monotonic() + min(_LAST_WORDS_SECONDS, max(3.0, self.stop.seconds_left))

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        farewells = [self._life] if self._life else []
        start = self._start
        if start is not None and self.run.nodes > 1:
            farewells.append(
                in_background(lambda: prepare.say_ended(self.output, start, self.index, verdict))
            )
        if not self.shipper.close(left()):
            self.say("not all of this log has reached storage")
        if not self.reporter.close(left()):
            self.say("the operator has not heard the last report")
        wait(farewells, timeout=left())
        self.logs.close()
