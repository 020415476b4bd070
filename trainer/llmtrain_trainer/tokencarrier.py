"""Carries prepared tokens between this node's disk and storage, while the processes load.

Tokens that are in storage are brought before the processes look for them. Where they are not, node
0 makes them and its launcher uploads them; the launchers of the other nodes wait for that, and end
with node 0 or after `prepare.timeoutSeconds`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

from llmtrain_api.errors import ConfigError, DataError, StorageError
from llmtrain_trainer import tokencache
from llmtrain_trainer.data import tokenkey
from llmtrain_trainer.stop import in_background
from llmtrain_trainer.workdir import ACCOUNT, TOKENS, Job

_STAGES = ("Pretrain", "SFT", "DPO", "KTO", "Reward")  # Which train on prepared tokens.
_POLL_SECONDS = 0.5


def makes_tokens(stage: str, node: int) -> bool:
    """Returns whether the processes of a node make the tokens of a stage, or wait for them."""
    return node == 0 or stage not in _STAGES


class Carrier:
    """Brings the tokens of a job, or takes them away.

    Args:
        job: What the processes of this node are to do.
        workdir: Their working folder.
        check_peer: Raises an error where node 0 has ended.
        tell: Is told what is being done.
        say: Writes a line to the log.
    """

    def __init__(
        self,
        job: Job,
        workdir: Path,
        *,
        check_peer: Callable[[], object],
        tell: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._job = job
        self._folder = workdir / TOKENS
        self._check_peer = check_peer
        self._tell = tell
        self._say = say
        self._name = tokenkey.of(job) if job.run.spec.stage in _STAGES else ""
        self._cache = tokencache.open_cache(job.run.spec)
        self._ended = threading.Event()
        self._work: Future[None] | None = None

    def bring(self) -> None:
        """Brings the tokens if they are in storage; else sees to them in the background.

        Raises:
            ConfigError: The cache may not be read.
            StorageError: Storage does not answer.
        """
        if not self._name:
            return
        if self._fetch():
            self._say("the tokens are there from before")
        elif self._job.makes_tokens:
            self._work = in_background(self._upload)
        else:
            self._work = in_background(self._await)

    def check(self) -> None:
        """Raises what went wrong in the background, if anything did."""
        if self._work is not None and self._work.done():
            self._work.result()

    def finish(self) -> None:
        """Waits until the tokens, which have been made, are in storage.

        Raises:
            LLMTrainError: They cannot be stored.
        """
        if self._work is not None:
            self._work.result()

    def close(self, seconds: float) -> None:
        """Waits for an upload that is under way, but for no tokens that are not made.

        Training has ended: what goes wrong from here on changes nothing of how.
        """
        self._ended.set()
        if self._work is None:
            return
        if not wait([self._work], seconds).done:
            if self._job.makes_tokens and (self._folder / ACCOUNT).exists():
                self._say("the tokens have not all reached storage: the next run makes them anew")
        elif error := self._work.exception():
            self._say(f"the tokens are not kept for later runs: {error}")

    def _fetch(self) -> bool:
        """Brings tokens that are in storage as they should be; returns whether there were any."""
        try:
            return tokencache.fetch(self._cache, self._name, self._folder, self._tell)
        except DataError as error:
            self._say(f"the tokens in storage are of no use: {error}")
        if self._job.makes_tokens:
            tokencache.forget(self._cache, self._name)
        return False

    def _upload(self) -> None:
        account = self._folder / ACCOUNT
        while not account.exists():
            if self._ended.wait(_POLL_SECONDS):
                return
        try:
            tokencache.store(self._cache, self._name, self._folder)
        except StorageError as error:
            if self._job.run.nodes > 1 or self._job.run.task == "Prepare":
                raise  # Others wait for them.
            self._say(f"the tokens are not kept for later runs: {error}")

    def _await(self) -> None:
        seconds = self._job.run.spec.preparing.timeout_seconds
        deadline = time.monotonic() + seconds
        while not self._fetch():
            self._check_peer()
            if time.monotonic() > deadline:
                raise ConfigError(
                    "prepare.timeoutSeconds",
                    f"node 0 did not turn the rows into tokens within {seconds} s",
                    "raise it, or let a run on one node with the same prepare.cacheUri make them",
                )
            self._tell("waiting for node 0 to turn the rows into tokens")
            if self._ended.wait(_POLL_SECONDS):
                return
