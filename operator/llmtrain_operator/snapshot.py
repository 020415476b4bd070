"""What the operator looks at before it decides: frozen views of a run, its Jobs and its pods.

The views keep the fields that decisions are made of and drop the rest, so that a cache of many
thousand pods stays small. Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from llmtrain_api.layout import LABEL_ATTEMPT, LABEL_RUN, LABEL_RUN_UID
from llmtrain_api.progress import Report
from llmtrain_api.references import SOURCE_FIELDS, Parent
from llmtrain_api.run import RunSpec
from llmtrain_api.status import ConditionType, RunStatus
from llmtrain_operator.reasons import Reason

Object = dict[str, Any]
TRAINER = "trainer"
"""Name of the container that trains."""
INDEX = "batch.kubernetes.io/job-completion-index"


class RunKey(NamedTuple):
    """Names a run."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class RunView:
    """An LLMTrainRun."""

    key: RunKey
    uid: str
    generation: int
    version: int
    deleting: bool
    spec: Object
    status: Object
    created: float = 0.0
    owner_uid: str = ""
    """UID of the schedule that made it; empty if none did."""

    @property
    def kind(self) -> str:
        """The kind of the object, for Events and logs."""
        return "LLMTrainRun"

    @property
    def named_runs(self) -> tuple[RunKey, ...]:
        """The runs that `fromRun` names in the spec, whether they exist or not."""
        sources = (self.spec.get(field) or {} for field in SOURCE_FIELDS)
        named = [source["fromRun"]["name"] for source in sources if source.get("fromRun")]
        return tuple(RunKey(self.key.namespace, name) for name in named)

    def condition(self, type_: ConditionType) -> Object:
        """Returns a condition as it stands in the status; empty where it is not set."""
        conditions = self.status.get("conditions") or []
        return next((dict(said) for said in conditions if said["type"] == type_), {})

    def read_status(self) -> RunStatus:
        """Returns the status without fields that only a newer operator knows, as after a rollback.

        Raises:
            ValidationError: Somebody else has written it.
        """
        return RunStatus.model_validate(self.status, extra="ignore")


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job that carries our label."""

    namespace: str
    name: str
    uid: str
    version: int
    run: str
    owner_uid: str
    """UID of the controller in its ownerReferences; empty if it has none."""
    attempt: int
    created: float
    deleting: bool
    ending: bool
    """Its outcome is decided, and its last pods are being stopped."""
    complete: bool
    failed: bool
    message: str
    """What its condition says of a failure."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that carries our label."""

    namespace: str
    name: str
    uid: str
    version: int
    run: str
    run_uid: str
    """UID of the run, as its label says."""
    job_uid: str
    attempt: int
    index: int
    node_name: str
    phase: str
    reason: str
    """Why the kubelet failed the pod as a whole, such as `Evicted`."""
    message: str
    unschedulable: str
    """What the scheduler says; empty for a pod that has a node."""
    disruption: str
    """Reason of the condition DisruptionTarget, such as `DeletionByTaintManager`."""
    disruption_time: float | None
    deletion_time: float | None
    """When its grace time is over; set for a pod that is being deleted."""
    image: str
    """The image by digest; empty until it is pulled."""
    waiting: str
    """Why the trainer container waits, such as `ImagePullBackOff`."""
    waiting_message: str
    created: float
    waits_since: float
    """When it got its node, or was made."""
    exit_code: int | None
    exit_reason: str
    exit_message: str
    finished: float | None
    gone: bool = False
    """It was deleted; this is how it was seen last."""

    @property
    def ended(self) -> bool:
        """Whether no process of it runs any more."""
        return self.gone or self.exit_code is not None or self.phase in ("Succeeded", "Failed")

    @property
    def vanished(self) -> bool:
        """Whether it was deleted before it could say how it ended."""
        return self.gone and self.exit_code is None and self.phase not in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        """Whether its trainer runs, or has done its work."""
        return not self.gone and self.phase in ("Running", "Succeeded")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A child that the API server did not take."""

    attempt: int
    what: str
    """Kind and name, such as `Job my-sft-a1`."""
    reason: str
    message: str
    terminal: bool
    """Whether trying again cannot help."""
    retry_at: float
    tries: int = 1


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """An Event on a Job or a pod."""

    reason: str
    message: str
    warning: bool
    time: float


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a run cannot start from the runs that it names."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What `fromRun` names, as far as it is known now: all parents, or what is in the way."""

    parents: tuple[Parent, ...] = ()
    obstacle: Obstacle | None = None


@dataclass(frozen=True)
class Defaults:
    """What the operator's settings decide for a run."""

    trainer_image: str
    restart_delay_seconds: float = 10.0


@dataclass(frozen=True)
class Snapshot:
    """All that a plan is made of."""

    run: RunView
    spec: RunSpec | None
    """The accepted spec; None if it cannot be carried out."""
    refusal_of_spec: str
    """Why it cannot, and the way out."""
    now: float
    defaults: Defaults
    jobs: tuple[JobView, ...] = ()
    """Jobs of this run, and a foreign one in the way of the latest attempt."""
    pods: tuple[PodView, ...] = ()
    """Pods of those Jobs, the ones that are gone included while their Job is there."""
    events: tuple[ClusterEvent, ...] = ()
    """Events of whatever keeps the workers from starting, oldest first."""
    report: Report | None = None
    reported_at: float = 0.0
    refusal: Refusal | None = None
    """Set while the API server does not take the children of the latest attempt."""
    lineage: Lineage = Lineage()
    """The runs that this one starts from."""


def parse_time(text: str | None) -> float | None:
    """Returns an RFC 3339 time in seconds since 1970, or None for none."""
    if not text:
        return None
    return datetime.fromisoformat(text).timestamp()


def format_time(seconds: float) -> str:
    """Returns a time as Kubernetes writes it, such as `2026-11-21T15:04:05Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_view(body: Object) -> RunView:
    """Returns the view of an LLMTrainRun as the API server sends it."""
    metadata = body["metadata"]
    return RunView(
        key=RunKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        version=int(metadata["resourceVersion"]),
        deleting="deletionTimestamp" in metadata,
        spec=body.get("spec") or {},
        status=body.get("status") or {},
        created=parse_time(metadata["creationTimestamp"]) or 0.0,
        owner_uid=controller_uid(metadata),
    )


def job_view(body: Object) -> JobView:
    """Returns the view of a Job."""
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or [] if c["status"] == "True"}
    failure = conditions.get("Failed") or conditions.get("FailureTarget") or {}
    return JobView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        run=labels.get(LABEL_RUN, ""),
        owner_uid=controller_uid(metadata),
        attempt=_number(labels.get(LABEL_ATTEMPT)),
        created=parse_time(metadata["creationTimestamp"]) or 0.0,
        deleting="deletionTimestamp" in metadata,
        ending="FailureTarget" in conditions or "SuccessCriteriaMet" in conditions,
        complete="Complete" in conditions,
        failed="Failed" in conditions,
        message=failure.get("message", ""),
    )


def pod_view(body: Object) -> PodView:
    """Returns the view of a pod."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    disruption = conditions.get("DisruptionTarget") or {}
    container = _container(status)
    state = container.get("state") or {}
    terminated, waiting = state.get("terminated") or {}, _waiting(status, state)
    bound = scheduled.get("status") == "True"
    created = parse_time(metadata["creationTimestamp"]) or 0.0
    reason, message = status.get("reason", ""), status.get("message", "")
    if not reason and not terminated:
        reason, message = _failed_before_trainer(status)
    return PodView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        run=labels.get(LABEL_RUN, ""),
        run_uid=labels.get(LABEL_RUN_UID, ""),
        job_uid=controller_uid(metadata),
        attempt=_number(labels.get(LABEL_ATTEMPT)),
        index=_number((metadata.get("annotations") or {}).get(INDEX) or labels.get(INDEX)),
        node_name=spec.get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        reason=reason,
        message=message,
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        disruption=disruption.get("reason", "") if disruption.get("status") == "True" else "",
        disruption_time=parse_time(disruption.get("lastTransitionTime")),
        deletion_time=parse_time(metadata.get("deletionTimestamp")),
        image=container.get("imageID", "") if "@sha256:" in container.get("imageID", "") else "",
        waiting=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        created=created,
        waits_since=parse_time(scheduled.get("lastTransitionTime")) or created
        if bound
        else created,
        exit_code=terminated.get("exitCode"),
        exit_reason=terminated.get("reason", ""),
        exit_message=terminated.get("message", ""),
        finished=parse_time(terminated.get("finishedAt")),
    )


def controller_uid(metadata: Object) -> str:
    """Returns the UID of the object that controls another one, or nothing."""
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def _container(status: Object) -> Object:
    for container in status.get("containerStatuses") or []:
        if container["name"] == TRAINER:
            return dict(container)
    return {}


def _waiting(status: Object, state: Object) -> Object:
    """Returns why the trainer waits; another container that cannot start comes first."""
    others = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    for other in others:
        waiting = (other.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return dict(waiting)
    return dict(state.get("waiting") or {})


def _failed_before_trainer(status: Object) -> tuple[str, str]:
    """Returns why a pod failed whose trainer never ran: an init container ended badly."""
    for container in status.get("initContainerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            said = ended.get("message") or ended.get("reason") or ""
            text = f"container {container['name']} ended with exit code {ended['exitCode']} {said}"
            return "InitContainerFailed", text.strip()
    return "", ""


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
