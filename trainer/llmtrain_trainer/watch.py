"""While the training processes run: pass on what they print and do, and obey the order to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llmtrain_api.base import ApiModel
from llmtrain_api.progress import Resolved
from llmtrain_api.runfile import spec_hash
from llmtrain_trainer.lines import Tail
from llmtrain_trainer.logs import ProcessOutput
from llmtrain_trainer.progress import progress_of
from llmtrain_trainer.reporter import Reporter
from llmtrain_trainer.stop import Stop
from llmtrain_trainer.torchrun import Gang, reap
from llmtrain_trainer.workdir import (
    ACTIVITY,
    PREEMPTED,
    RESOLVED,
    STOP,
    TRAINED,
    TRAINER_LOG,
    Activity,
    Job,
    RankFailure,
)

_POLL_SECONDS = 0.2
_SAVE_SHARE = 0.75
"""Part of the time left that the processes may use to save; the rest is for the upload."""

_Model = TypeVar("_Model", bound=ApiModel)


@dataclass
class Watch:
    """Node 0 also tells the operator; on other nodes the files it reads never appear."""

    job: Job
    workdir: Path
    gang: Gang
    output: ProcessOutput
    reporter: Reporter
    stop: Stop
    say: Callable[[str], None]
    check: Callable[[], None]
    """Raises what went wrong in the background and ends the gang."""

    def __post_init__(self) -> None:
        self._trainer_log = Tail(self.workdir / TRAINER_LOG)
        self.order_passed_on = False
        """Whether a command of the user's own has been told to stop, by SIGTERM."""

    def until_the_end(self) -> int:
        """Watches until torchrun has ended; returns its exit code."""
        give_up: float | None = None
        while (code := self.gang.exit_code()) is None:
            self.look()
            self.check()
            if self.stop.asked and give_up is None:
                give_up = self._ask_to_stop()
            if give_up is not None and self._too_late(give_up):
                self.say("the training processes did not stop in time: they are killed")
                self.gang.kill()
            reap(self.gang.process.pid)
            time.sleep(_POLL_SECONDS)
        self.look(to_the_end=True)
        return code

    def _ask_to_stop(self) -> float:
        """Asks for a checkpoint; returns the moment until which to wait for it."""
        left = self.stop.seconds_left
        if self.job.run.spec.stage == "Custom":
            self.say(f"told to stop: the command gets SIGTERM ({left:.0f} s left)")
            self.order_passed_on = True
            self.gang.terminate()
            return time.monotonic() + left * _SAVE_SHARE
        if left <= 0 or not self.trained:
            self.say("told to stop with nothing to save, or no time for it: training is ended")
            self.gang.kill()
            return float("inf")
        self.say(f"told to stop: asking for a checkpoint ({left:.0f} s left)")
        (self.workdir / STOP).touch()
        return time.monotonic() + left * _SAVE_SHARE

    def _too_late(self, give_up: float) -> bool:
        if self.stop.seconds_left <= 0:
            return True
        saving = (self.workdir / PREEMPTED).exists()
        return time.monotonic() > give_up and not saving

    def look(self, *, to_the_end: bool = False) -> None:
        """Passes on what is new."""
        self.output.follow(to_the_end=to_the_end)
        lines = self._trainer_log.read(to_the_end=to_the_end)
        if progress := progress_of(lines, self.reporter.report.progress):
            self.reporter.update(progress=progress)
        if activity := read_model(self.workdir / ACTIVITY, Activity):
            self.reporter.update(activity=activity.activity, message=activity.message)
        if resolved := read_model(self.workdir / RESOLVED, Resolved):
            known = {"spec_hash": spec_hash(self.job.run.spec)}
            self.reporter.update(resolved=resolved.model_copy(update=known))

    @property
    def trained(self) -> bool:
        """Whether a process of this node has trained a step."""
        return (self.workdir / TRAINED).exists()

    def failures(self) -> list[RankFailure]:
        """Returns what failing processes said of themselves."""
        files = sorted(self.workdir.glob("failure-rank-*.json"))
        return [failure for file in files if (failure := read_model(file, RankFailure))]

    @property
    def preempted(self) -> bool:
        """Whether the processes saved a checkpoint and stopped because they were told to."""
        return (self.workdir / PREEMPTED).exists()


def read_model(file: Path, kind: type[_Model]) -> _Model | None:
    """Returns what a process wrote into `file`, or nothing where it has not."""
    return kind.model_validate_json(file.read_bytes()) if file.exists() else None
