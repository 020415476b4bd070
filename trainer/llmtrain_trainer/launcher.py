"""The launcher: PID 1 of every trainer pod, and the same program on a laptop.

    settle    who owns the prefix, which attempt is this, where does it go on
    spawn     torchrun; the training processes import their libraries in the meantime
    fetch     inputs to this node's disk, checked before any of them reads a byte
    meet      all nodes are ready
    tokens    those in storage are brought; else node 0's processes make them, for all nodes
    train     logs, progress and checkpoints go out while the processes train
    finish    results to storage, the manifest last; only then may any node say success

Imports no torch. Ends with a class of exit code and a termination message that say the same.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmtrain_api.errors import LLMTrainError
from llmtrain_api.exits import ExitClass
from llmtrain_api.layout import trainer_log_segment
from llmtrain_trainer import (
    checkpoints,
    custom,
    finish,
    owner,
    prepare,
    tokencarrier,
    torchrun,
)
from llmtrain_trainer.cgroup import oom_kills, usable_cores
from llmtrain_trainer.inputs import Downloaded
from llmtrain_trainer.kubeflow import Receiver
from llmtrain_trainer.lineage import lineage
from llmtrain_trainer.lines import SegmentedUpload
from llmtrain_trainer.logs import ProcessOutput
from llmtrain_trainer.node import Node
from llmtrain_trainer.records import FinalManifest, Start
from llmtrain_trainer.saver import Saver
from llmtrain_trainer.tokencarrier import Carrier
from llmtrain_trainer.tracking import processes
from llmtrain_trainer.tracking.tensorboard import EventFiles
from llmtrain_trainer.verdict import GangEnd, Verdict, classify, classify_command
from llmtrain_trainer.watch import Watch
from llmtrain_trainer.workdir import DONE, FINAL, JOB, TRAINER_LOG, Job, write_atomically

_DRAIN_SECONDS = 120.0  # For checkpoints that are on disk when the processes have ended.
_SECONDS_FOR_FAILED_PEERS = 10.0  # For their parts of a checkpoint, when the gang has failed.
_PATIENCE_FOR_RESULTS = 900.0  # Seconds that an outage may last at the end: much is at stake.
_SECONDS_FOR_TRACKERS_OF_FAILED = 5.0  # Attempts; the next one waits for the end of this one.
_SECONDS_FOR_TOKENS = 120.0  # That are still on their way to storage when training has ended.
_POLL_SECONDS = 1.0


def launch(node: Node) -> ExitClass:
    """Runs this node's part of one attempt; returns how it ended."""
    try:
        verdict = _run(node)
    except LLMTrainError as error:
        verdict = Verdict(error.exit_class, str(error), exception=type(error).__name__)
    except Exception as error:
        node.say(traceback.format_exc())
        verdict = Verdict(ExitClass.INTERNAL, str(error), exception=type(error).__name__)
    node.end(verdict)
    return verdict.exit_class


def _run(node: Node) -> Verdict:
    output, run = node.output, node.run
    settled = node.stop.unless_asked(
        lambda: prepare.settle(output, run, node.index, node.scratch, node.tell), node.meanwhile
    )
    if isinstance(settled, FinalManifest):
        return _already_finished(node, settled)
    start = settled.start
    node.begin(start, settled.checkpoints)
    with _gang(node, start) as gang:
        inputs = node.stop.unless_asked(
            lambda: prepare.fetch_and_check(output, run, node.scratch, node.tell), node.meanwhile
        )
        node.stop.unless_asked(
            lambda: prepare.meet(output, run, start, node.index, node.tell), node.meanwhile
        )
        verdict = _train(node, settled, inputs, gang)
    if verdict.exit_class is not ExitClass.SUCCESS:
        return verdict
    if run.task == "Prepare":
        return Verdict(ExitClass.SUCCESS, "the rows are tokens, and these in storage")
    if node.index > 0:
        return _await_results(node, start)
    return _finish(node, start, inputs)


def _already_finished(node: Node, manifest: FinalManifest) -> Verdict:
    paths = [file.path for file in manifest.files]
    artifacts = finish.artifacts_of(node.output, paths)
    message = f"already trained: {node.output.uri}/ holds the results of {manifest.created_at}"
    node.reporter.update(activity="Finishing", message=message, artifacts=artifacts)
    for kept in reversed(lineage(*checkpoints.read_manifests(node.output, node.tell))):
        node.saw_checkpoint(kept)  # Another run may name one to start from.
    return Verdict(ExitClass.SUCCESS, message)


@contextmanager
def _gang(node: Node, start: Start) -> Iterator[torchrun.Gang]:
    """Starts the training processes, which import their libraries until there is a `job.json`."""
    workdir = _workdir(node, start)
    for old in node.scratch.glob("work-*"):  # Of earlier attempts; what counts is in storage.
        shutil.rmtree(old, ignore_errors=True)
    workdir.mkdir(parents=True)
    place = torchrun.Place(node.run, start.attempt, start.restart, node.index)
    with _spawned(node, place, workdir) as gang:
        node.child = gang.process.pid
        try:
            yield gang
        finally:
            gang.kill()


@contextmanager
def _spawned(node: Node, place: torchrun.Place, workdir: Path) -> Iterator[torchrun.Gang]:
    """Starts the processes; those of a command can tell node 0 how far they are."""
    cores, command = usable_cores(), node.run.spec.custom
    if command is None:
        yield torchrun.start(place, workdir, cores=cores, worker_module=node.worker_module)
        return
    custom.check(node.run.spec)
    start = torchrun.start if command.launcher == "Torchrun" else torchrun.start_alone
    module = torchrun.COMMAND_MODULE
    if node.index > 0:
        yield start(place, workdir, cores=cores, worker_module=module, more={})
        return
    with closing(Receiver(workdir / TRAINER_LOG, workdir / "token")) as receiver:
        more = receiver.environment
        yield start(place, workdir, cores=cores, worker_module=module, more=more)


def _train(
    node: Node, settled: prepare.Settled, inputs: Downloaded, gang: torchrun.Gang
) -> Verdict:
    """Lets the training processes of this node begin; returns how they ended."""
    start, workdir = settled.start, gang.workdir
    job = Job(
        run=node.run.model_copy(update={"attempt": node.run.attempt or start.attempt}),
        restart=start.restart,
        node=node.index,
        model_path=str(inputs.model or ""),
        adapter_path=str(inputs.adapter or ""),
        reference_path=str(inputs.reference or ""),
        model_files=inputs.model_files,
        dataset_files=inputs.dataset_files,
        tokenizer_files=tuple(inputs.tokenizer_files),
        makes_tokens=tokencarrier.makes_tokens(node.run.spec.stage, node.index),
        resume_from=str(settled.resume_from) if settled.resume_from else None,
        best_from=str(settled.best_from) if settled.best_from else None,
    )
    is_custom = node.run.spec.stage == "Custom"
    if is_custom:
        custom.lay_out(job, workdir)
    kills_before = oom_kills()
    carrier = _carrier(node, job, start, workdir)
    node.stop.unless_asked(carrier.bring, node.meanwhile)
    write_atomically(workdir / JOB, job.model_dump_json(by_alias=True, indent=2))
    if node.index == 0:
        _ship_the_log(node, start, workdir)
    best = settled.checkpoints[0].best if settled.checkpoints else None
    saver = _saver(node, job, start, workdir, best)
    watch = _watch(node, job, gang, carrier.check)
    # A Job that only makes tokens has no curves.
    told = processes.services(node.run.spec.tracking) if node.index == 0 else []
    with processes.Trackers([] if node.run.task else told, workdir, node.say) as trackers:
        code = watch.until_the_end()
        end = _gang_end(node, watch, code, oom_kills() - kills_before)
        verdict = classify_command(end) if is_custom else classify(end)
        trackers.end(verdict.exit_class)
        if not _drain(node, saver, verdict):
            node.say("not every checkpoint reached storage: a next attempt uses an older one")
        node.warnings += trackers.wait(_seconds_for_trackers(node, verdict), node.meanwhile)
    _carry_tokens(node, carrier, verdict)
    for warning in node.warnings:
        node.say(f"warning: {warning}")
    return verdict


def _saver(node: Node, job: Job, start: Start, workdir: Path, best: str | None) -> Saver:
    """Starts to carry checkpoints to storage; those of a command are looked for first."""
    is_custom = node.run.spec.stage == "Custom"
    return Saver(
        node.output,
        job,
        start,
        workdir,
        say=node.say,
        published=node.saw_checkpoint,
        # A next attempt logs from the checkpoint on, so what came before must be in storage.
        first=node.shipper.ship,
        look=custom.Checkpoints(job, workdir).take if is_custom else None,
        best=best,
    )


def _carry_tokens(node: Node, carrier: Carrier, verdict: Verdict) -> None:
    """Brings tokens that are on disk to storage: at any cost where that is all there is to do."""
    well = verdict.exit_class is ExitClass.SUCCESS
    if well and node.run.task == "Prepare":
        node.tell("uploading the tokens")
        node.stop.within_grace(carrier.finish, node.meanwhile)
    patience = _SECONDS_FOR_TOKENS if well else _SECONDS_FOR_FAILED_PEERS
    carrier.close(min(patience, node.stop.seconds_left))


def _ship_the_log(node: Node, start: Start, workdir: Path) -> None:
    """Lets the training log go to storage as it grows: as it is, and for TensorBoard."""
    log = workdir / TRAINER_LOG
    segments = SegmentedUpload(
        log, lambda segment: trainer_log_segment(start.attempt, start.restart, segment)
    )
    node.shipper.add(node.output, segments)
    node.shipper.add(node.output, EventFiles(log, start))


def _seconds_for_trackers(node: Node, verdict: Verdict) -> float:
    """Returns how long trackers may take for what is left."""
    success = verdict.exit_class is ExitClass.SUCCESS
    most = processes.PATIENCE if success else _SECONDS_FOR_TRACKERS_OF_FAILED
    return min(most, node.stop.seconds_left)


def _drain(node: Node, saver: Saver, verdict: Verdict) -> bool:
    """Uploads the checkpoints that are on disk; returns whether all of them are in storage."""
    preempted = verdict.exit_class is ExitClass.PREEMPTED
    failed = not preempted and verdict.exit_class is not ExitClass.SUCCESS
    for_peers = _SECONDS_FOR_FAILED_PEERS if failed else _DRAIN_SECONDS
    if preempted and node.stop.asked:
        for_peers = node.stop.seconds_left
    return saver.drain(_DRAIN_SECONDS, for_peers, node.stop, node.meanwhile, newest_first=preempted)


def _workdir(node: Node, start: Start) -> Path:
    return node.scratch / f"work-a{start.attempt}r{start.restart}"


def _carrier(node: Node, job: Job, start: Start, workdir: Path) -> Carrier:
    return Carrier(
        job,
        workdir,
        check_peer=lambda: prepare.check_alive(node.output, start, 0),
        tell=node.tell,
        say=node.say,
    )


def _watch(node: Node, job: Job, gang: torchrun.Gang, check: Callable[[], None]) -> Watch:
    count = node.run.processes_per_node
    first = node.index * count

    def files() -> dict[int, list[Path]]:
        return {first + local: gang.output_files(local) for local in range(count)}

    output = ProcessOutput(node.logs, files, gang.agent_log)
    return Watch(job, gang.workdir, gang, output, node.reporter, node.stop, node.say, check)


def _gang_end(node: Node, watch: Watch, code: int, kills: int) -> GangEnd:
    ends = watch.gang.ends()
    return GangEnd(
        exit_code=code,
        ends=ends,
        failures=watch.failures(),
        preempted=watch.preempted or watch.order_passed_on,
        stop_asked=node.stop.asked,
        trained=watch.trained,
        oom_kills=kills,
        last_lines=watch.output.last_lines(ends[0].rank if ends else None),
        nodes=node.run.nodes,
    )


def _finish(node: Node, start: Start, inputs: Downloaded) -> Verdict:
    """Uploads the results; node 0 only."""
    workdir = _workdir(node, start)
    final = workdir / FINAL
    if node.run.spec.stage == "Custom":
        custom.gather(workdir, final, node.say)
    if not (final / DONE).exists():
        return Verdict(ExitClass.INTERNAL, "the training processes ended without results")
    finish.add_warnings(final, node.warnings)
    node.output.patience = _PATIENCE_FOR_RESULTS
    node.shipper.flush()
    node.reporter.update(activity="Finishing", message="uploading the results")
    files = node.stop.within_grace(
        lambda: finish.upload_results(
            node.output,
            final,
            run=node.run,
            start=start,
            inputs=inputs,
            resolved=node.reporter.report.resolved,
            tell=node.tell,
        ),
        node.meanwhile,
    )
    artifacts = finish.artifacts_of(node.output, [file.path for file in files])
    node.reporter.update(activity="Finishing", message="finished", artifacts=artifacts)
    shutil.rmtree(workdir, ignore_errors=True)
    return Verdict(ExitClass.SUCCESS, f"the results are in {node.output.uri}/")


def _await_results(node: Node, start: Start) -> Verdict:
    """Waits for node 0's results: an index that has exited 0 is never run again."""

    def wait() -> Verdict:
        while owner.finished(node.output, node.run) is None:
            node.tell("waiting for node 0 to upload the results")
            prepare.check_alive(node.output, start, 0)
            time.sleep(_POLL_SECONDS)
        return Verdict(ExitClass.SUCCESS, f"the results are in {node.output.uri}/")

    return node.stop.within_grace(wait, node.meanwhile)
