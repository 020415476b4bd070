"""What to do about a run: from a snapshot to a plan. Pure: no clock, no network, no kopf.

    plan ── the spec cannot be carried out: the run is over
      ├── finished           tidy up (TTL), or start again (spec.retry)
      └── the latest attempt is
            none, or over    suspended │ wait for the runs that this one starts from │
                             start the next one, after its back-off
            unmade           make its children
            starting         say what it waits for, up to startTimeoutSeconds
            running          show progress
            lost, stopping   delete what hangs, wait for the last pod
            complete         the run has succeeded, or its tokens are made: on to the next one
            failed           say why; try again if that can help

An attempt is written into the status before its children are made, so that a crash neither loses
nor reuses a number. Planning twice from the same cluster gives the same status.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, assert_never

from llmtrain_api.exits import EXIT_POLICIES, ExitClass
from llmtrain_api.preparing import Task
from llmtrain_api.references import Parent
from llmtrain_api.run import RunSpec
from llmtrain_api.status import Attempt, ConditionType, Failure, Phase, RunStatus
from llmtrain_operator import attempts, conditions
from llmtrain_operator.children import job_names
from llmtrain_operator.conditions import Verdict
from llmtrain_operator.diagnosis import MAX_MESSAGE, describe, diagnose
from llmtrain_operator.findings import (
    parents_of,
    with_checkpoint,
    with_image,
    with_last_words,
    with_lineage,
    with_model,
    with_report_of,
    with_step,
)
from llmtrain_operator.gang import Gang, GangState, is_stuck, observe_gang, own_jobs, own_pods
from llmtrain_operator.preparation import next_task, nodes_of
from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import JobView, PodView, Snapshot, format_time, parse_time
from llmtrain_operator.waiting import why_waiting

LOOK_AGAIN_SECONDS = 5.0
"""Between two looks at workers that do not start or stop."""
JOBS_KEPT = 3
"""Jobs of the newest attempts stay, with their pods and logs; older ones are deleted."""
STOPS_WITH_SUSPENSION = (ExitClass.PREEMPTED, ExitClass.PEER_LOST, ExitClass.NODE_LOST)


@dataclass(frozen=True)
class Start:
    """Make the children of an attempt that is written down."""

    attempt: int
    image: str
    spec: RunSpec
    """With folders in the place of `fromRun`."""
    task: Task
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to do, in this order."""

    status: RunStatus | None = None
    """The whole new status; None leaves it as it is."""
    start: Start | None = None
    delete_jobs: tuple[JobView, ...] = ()
    """Jobs to delete, with their pods."""
    delete_config_maps: tuple[str, ...] = ()
    """Names of ConfigMaps of attempts that are over for long."""
    kill_pods: tuple[PodView, ...] = ()
    """Pods on dead nodes, to be removed by force."""
    look_again: float | None = None
    """Seconds after which time alone may change the plan."""


def plan(snapshot: Snapshot) -> Plan:
    """Returns what to do about a run."""
    if snapshot.run.deleting:
        return Plan()  # Its children go with it, by their owner references.
    status, spec = snapshot.run.read_status(), snapshot.spec
    if _is_finished(status):
        if not _starts_anew(snapshot, status):
            return _plan_finished(snapshot, status)
        status = attempts.anew(status)
    if spec is None:
        return _refuse(snapshot, status)
    parents = parents_of(snapshot, status)
    spec = spec.resolved(parents)
    status = with_report_of(snapshot, with_lineage(status, spec, parents))
    status = with_model(status, spec)
    status = attempts.recovered(status, own_jobs(snapshot), spec.retry)
    status = attempts.with_retry(status, spec.retry)
    latest = status.attempts[-1] if status.attempts else None
    if latest is None or latest.outcome is not None:
        return _plan_next(snapshot, status, spec)
    return _plan_open(snapshot, status, spec, latest)


def _plan_next(snapshot: Snapshot, status: RunStatus, spec: RunSpec) -> Plan:
    """Returns what to do when no attempt is going on and the run is not finished."""
    now, key = snapshot.now, snapshot.run.key
    jobs = _unfinished(snapshot)
    pods = [pod for pod in own_pods(snapshot) if not pod.ended]  # They may outlive their Job.
    if jobs or pods:
        what = f"Job {jobs[0].name}" if jobs else f"Pod {pods[0].name}"
        message = f"{what} of an earlier attempt is stopping."
        verdict = conditions.stopping(Phase.PENDING, message, suspending=spec.suspend)
        stuck = tuple(pod for pod in pods if is_stuck(pod, now))
        return _look_again(snapshot, status, verdict, delete_jobs=_to_delete(jobs), kill_pods=stuck)
    if spec.suspend:
        return Plan(_said(snapshot, status, conditions.suspended()))
    if spec.references:
        return _plan_waiting(snapshot, status, spec)
    due = attempts.next_start(status, spec.retry, snapshot.defaults.restart_delay_seconds)
    if now < due:
        failed = status.attempts[-1]
        message = f"Attempt {failed.number} ended ({failed.outcome}); the next one starts soon."
        verdict = conditions.backing_off(message)
        return Plan(_said(snapshot, status, verdict), look_again=due - now)
    image = spec.workers.image or snapshot.defaults.trainer_image
    number = attempts.next_number(status, own_jobs(snapshot), own_pods(snapshot))
    stale = number - JOBS_KEPT
    task = next_task(status, spec)
    status = attempts.start(
        status, key.name, number, image=image, retry=spec.retry, now=now, task=task
    )
    return replace(
        _plan_unmade(snapshot, status, spec, status.attempts[-1]),
        delete_jobs=_to_delete(own_jobs(snapshot)[: -JOBS_KEPT + 1]),
        delete_config_maps=job_names(key.name, stale) if stale > 0 else (),
    )


def _plan_waiting(snapshot: Snapshot, status: RunStatus, spec: RunSpec) -> Plan:
    """Returns what to do while a run that this one starts from has not succeeded: to wait.

    One that goes on is waited for as long as it takes; one that failed or is not there, for
    `startTimeoutSeconds`, since that heals or comes, or it never does.
    """
    obstacle, now = snapshot.lineage.obstacle, snapshot.now
    assert obstacle is not None  # Else it would have been resolved.
    reason, message = obstacle.reason, obstacle.message
    if reason is Reason.INVALID_SPEC:
        return _finish(snapshot, status, conditions.failed(reason, message, accepted=False))
    said = _said(snapshot, status, conditions.waiting_for_run(reason, message))
    if reason is Reason.WAITING_FOR_RUN:
        return Plan(said)
    accepted = next(c for c in said.conditions if c.type == ConditionType.ACCEPTED)
    since = parse_time(accepted.last_transition_time) or now
    left = since + spec.start_timeout_seconds - now
    if left > 0:
        return Plan(said, look_again=left)
    message = (
        f"Waited {spec.start_timeout_seconds} s (startTimeoutSeconds) in vain: {message}. Then"
        " raise spec.retry to try again."
    )
    return _finish(snapshot, status, conditions.failed(Reason.START_TIMEOUT, message))


def _plan_open(snapshot: Snapshot, status: RunStatus, spec: RunSpec, latest: Attempt) -> Plan:
    """Returns what to do about an attempt that is not over."""
    gang = observe_gang(snapshot, latest, nodes_of(latest.task, spec))
    if latest.job_uid != gang.job_uid:
        status = attempts.with_latest(status, job_uid=gang.job_uid)
    match gang.state:
        case GangState.UNMADE:
            return _plan_unmade(snapshot, status, spec, latest)
        case GangState.STARTING | GangState.RUNNING:
            return _plan_alive(snapshot, status, spec, gang)
        case GangState.LOST | GangState.STOPPING:
            return _plan_stopping(snapshot, status, spec, gang)
        case GangState.COMPLETE:
            if latest.task == "Prepare":
                return _plan_next(snapshot, attempts.prepared(status, snapshot.now), spec)
            return _plan_success(snapshot, status, gang)
        case GangState.FAILED:
            return _plan_failure(snapshot, status, spec, gang)
        case _ as unknown:
            assert_never(unknown)


def _plan_unmade(snapshot: Snapshot, status: RunStatus, spec: RunSpec, latest: Attempt) -> Plan:
    now, refusal = snapshot.now, snapshot.refusal
    if spec.suspend:
        return _plan_next(
            snapshot, attempts.end(status, attempts.SUSPENDED, now, counts=False), spec
        )
    if attempts.start_timed_out(latest, spec.start_timeout_seconds, now):
        return _give_up_starting(snapshot, status, spec, refusal.message if refusal else "")
    image = latest.image or snapshot.defaults.trainer_image
    start = Start(latest.number, image, spec, latest.task, parents_of(snapshot, status))
    phase = attempts.phase_of_start(status)
    if refusal is None or refusal.attempt != latest.number:
        return Plan(_said(snapshot, status, conditions.pending(phase, latest.job)), start)
    if refusal.terminal:
        return _fail_as_invalid(snapshot, status, refusal.message)
    verdict = conditions.held_up(phase, refusal.reason, refusal.message)
    wait = refusal.retry_at - now
    return Plan(
        _said(snapshot, status, verdict),
        start=start if wait <= 0 else None,
        look_again=wait if wait > 0 else LOOK_AGAIN_SECONDS,
    )


def _plan_alive(snapshot: Snapshot, status: RunStatus, spec: RunSpec, gang: Gang) -> Plan:
    """Returns what to do about an attempt whose pods start or run."""
    assert gang.job is not None  # These two states are of a Job that is there.
    latest, now = status.attempts[-1], snapshot.now
    nodes = nodes_of(latest.task, spec)
    if spec.suspend:
        return _plan_stopping(snapshot, status, spec, gang)
    if gang.state is GangState.RUNNING:
        if latest.running_time is None:
            status = attempts.with_latest(status, running_time=format_time(now))
        prepares = latest.task == "Prepare"
        verdict = conditions.preparing(latest.job) if prepares else conditions.running(nodes)
        return Plan(_said(snapshot, with_image(status, gang.pods), verdict))
    reason, message = why_waiting(gang.job, gang.pods, nodes, snapshot.events)
    if latest.running_time is None and attempts.start_timed_out(
        latest, spec.start_timeout_seconds, now
    ):
        return _give_up_starting(snapshot, status, spec, message)
    verdict = conditions.starting(attempts.phase_of_start(status), reason, message)
    return _look_again(snapshot, status, verdict)


def _plan_stopping(snapshot: Snapshot, status: RunStatus, spec: RunSpec, gang: Gang) -> Plan:
    """Returns what to do about an attempt whose end is decided."""
    message = "The last pods of the attempt are stopping."
    delete: tuple[JobView, ...] = ()
    if gang.job is not None and (spec.suspend or gang.state is GangState.LOST):
        delete = _to_delete([gang.job])
    if gang.state is GangState.LOST:
        message = "A pod is lost; the other pods of the attempt are being stopped."
    verdict = conditions.stopping(attempts.phase_of_start(status), message, suspending=spec.suspend)
    return _look_again(snapshot, status, verdict, delete_jobs=delete, kill_pods=gang.stuck)


def _plan_success(snapshot: Snapshot, status: RunStatus, gang: Gang) -> Plan:
    status = attempts.end(status, ExitClass.SUCCESS, snapshot.now, counts=False)
    status = with_last_words(with_image(status, gang.pods), gang.pods)
    step = status.progress.step if status.progress else None
    message = f"Attempt {status.attempt} finished" + (f" at step {step}." if step else ".")
    return _finish(snapshot, status, conditions.succeeded(message))


def _plan_failure(snapshot: Snapshot, status: RunStatus, spec: RunSpec, gang: Gang) -> Plan:
    """Returns what to do after an attempt has failed."""
    diagnosis = diagnose(gang.pods, gang.job.message if gang.job else "")
    failure = with_step(diagnosis.failure, status)
    status = with_checkpoint(status, diagnosis.checkpoint)
    exit_class, now = ExitClass(failure.exit_class), snapshot.now
    if spec.suspend and exit_class in STOPS_WITH_SUSPENSION:
        status = attempts.end(status, attempts.SUSPENDED, now, counts=False)
        return _plan_next(snapshot, status, spec)
    policy = EXIT_POLICIES[exit_class]
    message = describe(status.attempts[-1].number, failure)
    used_up = policy.counts and (status.restarts or 0) >= spec.restart_policy.max_restarts
    if policy.retry and not used_up:
        status = attempts.end(
            status, failure.exit_class, now, failure=failure, counts=policy.counts
        )
        return _plan_next(snapshot, status, spec)
    if used_up and policy.retry:
        message += (
            f" Given up after {status.restarts or 0} restarts (restartPolicy.maxRestarts): raise"
            " spec.retry to try again."
        )
    return _fail(snapshot, status, failure, message)


def _plan_finished(snapshot: Snapshot, status: RunStatus) -> Plan:
    """Returns what is left to do for a run that is over: mostly nothing."""
    run, now, spec = snapshot.run, snapshot.now, snapshot.spec
    status = with_report_of(snapshot, status)
    status = status.model_copy(
        update={"observed_generation": run.generation, "progress": attempts.idle(status.progress)}
    )
    expired = _unfinished(snapshot)
    names: tuple[str, ...] = ()
    ttl = spec.ttl_seconds_after_finished if spec else None
    look_again = None
    if ttl is not None:
        look_again = (parse_time(status.completion_time) or now) + ttl - now
        if look_again <= 0:
            expired, look_again = own_jobs(snapshot), None
            names = tuple(attempt.job for attempt in status.attempts) if expired else ()
    return Plan(
        status,
        delete_jobs=_to_delete(expired),
        delete_config_maps=names,
        look_again=look_again,
    )


def _refuse(snapshot: Snapshot, status: RunStatus) -> Plan:
    """Returns the end of a run whose spec cannot be carried out, unless it trains already.

    Its spec was accepted once: this operator is another version, or is set up in another way. The
    next one that takes the spec goes on from here.
    """
    message = snapshot.refusal_of_spec
    if status.attempts and status.attempts[-1].outcome is None:
        gang = observe_gang(snapshot, status.attempts[-1], nodes=1)
        prepared = status.attempts[-1].task == "Prepare" and gang.state is GangState.COMPLETE
        if prepared or gang.state is GangState.UNMADE:
            return _fail_as_invalid(snapshot, status, message)
        if gang.state is GangState.COMPLETE:
            return _plan_success(snapshot, with_report_of(snapshot, status), gang)
        generation, now = snapshot.run.generation, snapshot.now
        said = conditions.not_accepted(status.conditions, message, generation, now)
        changes = {"observed_generation": generation, "conditions": said}
        return Plan(status.model_copy(update=changes), look_again=LOOK_AGAIN_SECONDS)
    verdict = conditions.failed(Reason.INVALID_SPEC, message, accepted=False)
    return _finish(snapshot, status, verdict)


def _fail_as_invalid(snapshot: Snapshot, status: RunStatus, message: str) -> Plan:
    failure = Failure(exit_class=ExitClass.CONFIG, message=message[:MAX_MESSAGE])
    return _fail(snapshot, status, failure, message, accepted=False)


def _fail(
    snapshot: Snapshot,
    status: RunStatus,
    failure: Failure,
    message: str,
    *,
    accepted: bool = True,
) -> Plan:
    status = attempts.end(status, failure.exit_class, snapshot.now, failure=failure, counts=False)
    verdict = conditions.failed(failure.exit_class, message, accepted=accepted)
    return _finish(snapshot, status, verdict)


def _give_up_starting(snapshot: Snapshot, status: RunStatus, spec: RunSpec, why: str) -> Plan:
    message = (
        f"The pods were not all running within {spec.start_timeout_seconds} s"
        f" (startTimeoutSeconds): {why or 'they could not be made'}. Mend that, then raise"
        " spec.retry to try again."
    )
    status = attempts.end(status, Reason.START_TIMEOUT, snapshot.now, counts=False)
    return _finish(snapshot, status, conditions.failed(Reason.START_TIMEOUT, message))


def _finish(snapshot: Snapshot, status: RunStatus, verdict: Verdict) -> Plan:
    status = status.model_copy(update={"completion_time": format_time(snapshot.now)})
    return Plan(_said(snapshot, status, verdict), delete_jobs=_to_delete(_unfinished(snapshot)))


def _look_again(snapshot: Snapshot, status: RunStatus, verdict: Verdict, **work: Any) -> Plan:
    return Plan(_said(snapshot, status, verdict), look_again=LOOK_AGAIN_SECONDS, **work)


def _said(snapshot: Snapshot, status: RunStatus, verdict: Verdict) -> RunStatus:
    """Returns `status` with what is said of the run in this situation."""
    generation = snapshot.run.generation
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": verdict.phase,
            "conditions": verdict.conditions(status.conditions, generation, snapshot.now),
        }
    )


def _is_finished(status: RunStatus) -> bool:
    return any(c.type == ConditionType.FINISHED and c.status == "True" for c in status.conditions)


def _starts_anew(snapshot: Snapshot, status: RunStatus) -> bool:
    """Returns whether a finished run is to be tried again. One that has succeeded never is."""
    if status.phase is not Phase.FAILED:
        return False
    if not status.attempts:  # It was refused; perhaps the spec has been corrected.
        return status.observed_generation != snapshot.run.generation
    return snapshot.spec is not None and snapshot.spec.retry > status.attempts[-1].retry


def _unfinished(snapshot: Snapshot) -> list[JobView]:
    return [job for job in own_jobs(snapshot) if not (job.complete or job.failed)]


def _to_delete(jobs: list[JobView]) -> tuple[JobView, ...]:
    return tuple(job for job in jobs if not job.deleting)
