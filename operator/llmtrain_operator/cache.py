"""What the operator knows of the cluster: views of runs, Jobs, pods and schedules.

They come by watch and by list.

An object is replaced by a newer version only, so a late event never hides what the operator wrote
itself. A pod that is deleted stays, marked as gone, until the attempt it belongs to is over: its
last words may say why the attempt failed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TypeVar

from llmtrain_operator.auth import Caller
from llmtrain_operator.schedule_snapshot import ScheduleKey, ScheduleView, schedule_view
from llmtrain_operator.snapshot import (
    JobView,
    Object,
    PodView,
    RunKey,
    RunView,
    job_view,
    pod_view,
    run_view,
)

Place = TypeVar("Place")
Item = TypeVar("Item")

REMOVED_REMEMBERED = 20_000
"""UIDs that are known to be gone: more than what goes while a list is being read."""


class Cache:
    """Runs, Jobs, pods and schedules.

    A method that takes up or removes an object returns the run it is about, or None if that is
    nothing new: what the operator wrote itself comes back from the watch, too.
    """

    def __init__(self) -> None:
        self.runs: dict[RunKey, RunView] = {}
        self.schedules: dict[ScheduleKey, ScheduleView] = {}
        self._runs_of: dict[str, set[RunKey]] = {}  # By the UID of their schedule.
        self._jobs: dict[str, JobView] = {}
        self._pods: dict[str, PodView] = {}
        self._followers: dict[RunKey, set[RunKey]] = {}
        self._jobs_of: dict[RunKey, set[str]] = {}
        self._pods_of: dict[RunKey, set[str]] = {}
        self._removed: dict[str, None] = {}  # UIDs, oldest first: a late list must not revive them.

    def set_run(self, body: Object) -> RunKey | None:
        """Takes up a run, unless this version or a newer one is known."""
        run = run_view(body)
        known = self.runs.get(run.key)
        if run.uid in self._removed or (known is not None and known.version >= run.version):
            return None
        if known is not None:
            self._forget_run(known)
        self.runs[run.key] = run
        for named in run.named_runs:
            self._followers.setdefault(named, set()).add(run.key)
        if run.owner_uid:
            self._runs_of.setdefault(run.owner_uid, set()).add(run.key)
        return run.key

    def remove_run(self, key: RunKey, uid: str) -> RunKey:
        """Forgets a run, unless another one has its name by now."""
        self._note_removed(uid)
        known = self.runs.get(key)
        if known is not None and known.uid == uid:
            self._forget_run(known)
            self.drop_gone_pods(key)
        return key

    def followers_of(self, key: RunKey) -> frozenset[RunKey]:
        """Returns the runs that name this one in `fromRun`, whether it exists or not."""
        return frozenset(self._followers.get(key, ()))

    def set_schedule(self, body: Object) -> ScheduleKey | None:
        """Takes up a schedule, unless this version or a newer one is known."""
        schedule = schedule_view(body)
        known = self.schedules.get(schedule.key)
        if schedule.uid in self._removed:
            return None
        if known is not None and known.version >= schedule.version:
            return None
        self.schedules[schedule.key] = schedule
        return schedule.key

    def remove_schedule(self, key: ScheduleKey, uid: str) -> ScheduleKey:
        """Forgets a schedule, unless another one has its name by now."""
        self._note_removed(uid)
        known = self.schedules.get(key)
        if known is not None and known.uid == uid:
            del self.schedules[key]
        return key

    def runs_of_schedule(self, uid: str) -> tuple[RunView, ...]:
        """Returns the runs that the schedule of this UID owns, oldest first."""
        runs = (self.runs[key] for key in self._runs_of.get(uid, ()))
        return tuple(sorted(runs, key=lambda run: (run.created, run.key.name)))

    def set_job(self, body: Object) -> RunKey | None:
        """Takes up a Job, unless this version or a newer one is known."""
        job = job_view(body)
        key = RunKey(job.namespace, job.run)
        known = self._jobs.get(job.uid)
        if job.uid in self._removed or (known is not None and known.version >= job.version):
            return None
        self._jobs[job.uid] = job
        self._jobs_of.setdefault(key, set()).add(job.uid)
        return key

    def remove_job(self, uid: str) -> RunKey | None:
        """Forgets a Job."""
        self._note_removed(uid)
        job = self._jobs.pop(uid, None)
        if job is None:
            return None
        key = RunKey(job.namespace, job.run)
        _discard(self._jobs_of, key, uid)
        return key

    def set_pod(self, body: Object) -> RunKey | None:
        """Takes up a pod, unless this version or a newer one is known."""
        pod = pod_view(body)
        key = RunKey(pod.namespace, pod.run)
        known = self._pods.get(pod.uid)
        if known is None and pod.uid in self._removed:
            return None
        if known is not None and known.version >= pod.version:
            return None
        # The last words may come after the pod was found to be gone.
        self._pods[pod.uid] = replace(pod, gone=known is not None and known.gone)
        self._pods_of.setdefault(key, set()).add(pod.uid)
        return key

    def remove_pod(self, uid: str) -> RunKey | None:
        """Marks a pod as gone; forgets it if its run is not there."""
        self._note_removed(uid)
        pod = self._pods.get(uid)
        if pod is None:
            return None
        key = RunKey(pod.namespace, pod.run)
        if key in self.runs:
            self._pods[uid] = replace(pod, gone=True)
        else:
            self._forget_pod(key, uid)
        return key

    def drop_gone_pods(self, key: RunKey, keep_job: str | None = None) -> None:
        """Forgets the pods of a run that are gone, but for those of the Job `keep_job`."""
        for pod in self.pods_of(key):
            if pod.gone and pod.job_uid != keep_job:
                self._forget_pod(key, pod.uid)

    def jobs_of(self, key: RunKey) -> tuple[JobView, ...]:
        """Returns the Jobs that carry a run's label, oldest attempt first."""
        jobs = (self._jobs[uid] for uid in self._jobs_of.get(key, ()))
        return tuple(sorted(jobs, key=lambda job: (job.attempt, job.created)))

    def pods_of(self, key: RunKey) -> tuple[PodView, ...]:
        """Returns the pods that carry a run's label, by index."""
        pods = (self._pods[uid] for uid in self._pods_of.get(key, ()))
        return tuple(sorted(pods, key=lambda pod: (pod.attempt, pod.index, pod.version)))

    def remove_what_is_not_in(
        self, runs: set[str], jobs: set[str], pods: set[str], version: int
    ) -> set[RunKey]:
        """Removes what lists of UIDs do not hold; returns the runs it was about.

        What is newer than `version`, the oldest of the lists, may have been made after them.
        """
        keys: set[RunKey] = set()
        for run in list(self.runs.values()):
            if run.uid not in runs and run.version <= version:
                keys.add(self.remove_run(run.key, run.uid))
        for job in list(self._jobs.values()):
            if job.uid not in jobs and job.version <= version and self.remove_job(job.uid):
                keys.add(RunKey(job.namespace, job.run))
        for pod in list(self._pods.values()):
            stays = pod.uid in pods or pod.gone or pod.version > version
            if not stays and self.remove_pod(pod.uid):
                keys.add(RunKey(pod.namespace, pod.run))
        return keys

    def remove_schedules_not_in(self, uids: set[str], version: int) -> None:
        """Removes the schedules that a list of this version does not hold."""
        for schedule in list(self.schedules.values()):
            if schedule.uid not in uids and schedule.version <= version:
                self.remove_schedule(schedule.key, schedule.uid)

    def run_of_pod(self, namespace: str, pod_name: str, pod_uid: str) -> Caller | None:
        """Returns the run that owns a pod through its Job, by uid all the way, or None.

        The Job may be gone already while its pod still stops: then the run's status vouches for it.
        """
        pod = self._pods.get(pod_uid)
        if pod is None or pod.gone or (pod.namespace, pod.name) != (namespace, pod_name):
            return None
        run = self.runs.get(RunKey(namespace, pod.run))
        if run is None:
            return None
        attempt = self._attempt_of(run, pod.job_uid)
        return Caller(namespace, run.key.name, run.uid, attempt, pod_name) if attempt else None

    def phases(self) -> Counter[str]:
        """Returns how many runs there are by phase."""
        return Counter(str(run.status.get("phase") or "Pending") for run in self.runs.values())

    def ready_schedules(self) -> dict[str, int]:
        """Returns how many schedules there are by the status of their condition `Ready`."""
        counts = dict.fromkeys(("True", "False", "Unknown"), 0)
        for schedule in self.schedules.values():
            said = schedule.status.get("conditions") or []
            ready = next((c["status"] for c in said if c["type"] == "Ready"), "Unknown")
            counts[ready] += 1
        return counts

    def _attempt_of(self, run: RunView, job_uid: str) -> int | None:
        job = self._jobs.get(job_uid)
        if job is not None:
            return job.attempt if job.owner_uid == run.uid else None
        for attempt in run.status.get("attempts") or []:
            if attempt.get("jobUid") == job_uid:
                return int(attempt["number"])
        return None

    def _forget_run(self, run: RunView) -> None:
        del self.runs[run.key]
        for named in run.named_runs:
            _discard(self._followers, named, run.key)
        _discard(self._runs_of, run.owner_uid, run.key)

    def _note_removed(self, uid: str) -> None:
        self._removed[uid] = None
        if len(self._removed) > REMOVED_REMEMBERED:
            del self._removed[next(iter(self._removed))]

    def _forget_pod(self, key: RunKey, uid: str) -> None:
        self._pods.pop(uid, None)
        _discard(self._pods_of, key, uid)


def _discard(index: dict[Place, set[Item]], key: Place, item: Item) -> None:
    items = index.get(key, set())
    items.discard(item)
    if not items:
        index.pop(key, None)
