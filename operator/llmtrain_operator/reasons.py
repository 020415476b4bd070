"""The reasons of conditions and Events: one word each, for programs; part of the API.

A failed run carries its exit class (`llmtrain_api.exits.ExitClass`) as the reason of `Succeeded`,
`Finished` and `Stalled`; what the kubelet or the scheduler says of a pod that does not start
(`ImagePullBackOff`, `Unschedulable`, ...) is passed on as the reason of `WorkersReady`.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Reasons of conditions."""

    # Accepted
    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"

    # Accepted and WorkersReady
    WAITING_FOR_RUN = "WaitingForRun"
    """A run that `fromRun` names has not succeeded yet."""
    RUN_NOT_FOUND = "RunNotFound"
    """There is no such run (yet, or any more)."""
    PREDECESSOR_FAILED = "PredecessorFailed"
    """It has failed; it may be tried again."""

    # WorkersReady
    PENDING = "Pending"
    """The Job of the attempt has yet to be made."""
    PREPARING = "Preparing"
    """A Job of its own makes the tokens, before the workers start."""
    STARTING = "Starting"
    """The Job is there and its pods are on their way."""
    ALL_RUNNING = "AllRunning"
    STOPPING = "Stopping"
    BACK_OFF = "BackOff"
    """An attempt failed; the next one starts after a delay."""
    NAME_TAKEN = "NameTaken"
    """An object that is not the run's has the name of one of its children."""
    FORBIDDEN = "Forbidden"
    """The API server refuses a child: quota, a policy or missing rights."""
    UNSCHEDULABLE = "Unschedulable"
    ENDED = "Ended"

    # Suspended
    SUSPENDED = "Suspended"
    SUSPENDING = "Suspending"
    NOT_SUSPENDED = "NotSuspended"

    # Reconciling
    CREATING_WORKERS = "CreatingWorkers"
    STOPPING_WORKERS = "StoppingWorkers"
    WAITING_TO_RESTART = "WaitingToRestart"
    UP_TO_DATE = "UpToDate"

    # Stalled
    NOT_STALLED = "NotStalled"

    # Succeeded and Finished
    NOT_FINISHED = "NotFinished"
    SUCCEEDED = "Succeeded"
    START_TIMEOUT = "StartTimeout"


class ScheduleReason(StrEnum):
    """Reasons of the conditions of a schedule, and of the times that it skips."""

    # Ready and Stalled
    SCHEDULED = "Scheduled"
    SUSPENDED = "Suspended"
    INVALID_SPEC = "InvalidSpec"
    RUN_REFUSED = "RunRefused"
    """The API server does not take the run of a time."""

    # Skipped times
    RUN_ACTIVE = "RunActive"
    TOO_LATE = "TooLate"
    MISSED = "Missed"
    REFUSED = "Refused"


class EventReason(StrEnum):
    """Reasons of the Events on a run, and on a schedule."""

    ATTEMPT_STARTED = "AttemptStarted"
    WORKERS_RUNNING = "WorkersRunning"
    WORKERS_NOT_READY = "WorkersNotReady"
    ATTEMPT_FAILED = "AttemptFailed"
    CHECKPOINT_SAVED = "CheckpointSaved"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REFUSED = "Refused"

    # On a schedule.
    RUN_CREATED = "RunCreated"
    RUN_REPLACED = "RunReplaced"
    RUN_REFUSED = "RunRefused"
    TIME_SKIPPED = "TimeSkipped"
