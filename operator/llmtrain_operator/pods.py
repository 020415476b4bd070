"""The trainer pod of one attempt, as a plain dict: pure, no client.

It meets the Pod Security Standard `restricted`. All that the trainer writes goes to the scratch
volume; the root file system is read-only.
"""

from __future__ import annotations

from llmtrain_api.layout import (
    CA_FILE_NAME,
    CA_FOLDER,
    LABEL_RUN_UID,
    LAUNCHER,
    RUN_FILE_FOLDER,
    RUN_FILE_NAME,
    SCRATCH_FOLDER,
    SECRET_FOLDER,
    SHARED_MEMORY_FOLDER,
    TERMINATION_LOG,
    TOKEN_AUDIENCE,
    TOKEN_FILE,
)
from llmtrain_api.run import RunSpec
from llmtrain_api.tracking import MLFLOW_KEYS, WANDB_KEY, Tracking
from llmtrain_api.workers import Workers
from llmtrain_operator.snapshot import TRAINER, Object

USER = 65532  # `nonroot` of the distroless images, free of any account on a node.
TOKEN_SECONDS = 3600  # The kubelet renews the token when 80 % of this is over.
NODE_LOST_SECONDS = 30
"""How long a pod stays on a node that does not answer (Kubernetes' own default: 300 s). The other
nodes of the gang hold their devices for nothing meanwhile."""

RUN_FILE, AUTHORITY, TOKEN = "llmtrain-run", "llmtrain-ca", "llmtrain-token"
STORAGE, SCRATCH, SHARED_MEMORY = "llmtrain-storage", "llmtrain-scratch", "llmtrain-shared-memory"
OWN_VOLUMES = frozenset({RUN_FILE, AUTHORITY, TOKEN, STORAGE, SCRATCH, SHARED_MEMORY})

ENVIRONMENT = {
    "HOME": str(SCRATCH_FOLDER),
    "TMPDIR": "/tmp",
    "XDG_CACHE_HOME": str(SCRATCH_FOLDER / ".cache"),
    "HF_HOME": str(SCRATCH_FOLDER / ".cache/huggingface"),
    "MPLCONFIGDIR": str(SCRATCH_FOLDER / ".cache/matplotlib"),
    "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH_FOLDER / ".cache/torchinductor"),
    "TRITON_CACHE_DIR": str(SCRATCH_FOLDER / ".cache/triton"),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}


def build_pod(spec: RunSpec, *, image: str, config_map: str, service: str, run_uid: str) -> Object:
    """Returns the spec of the pods of one attempt, before `workers.podTemplate`."""
    workers = spec.workers
    pod: Object = {
        "restartPolicy": "Never",
        "subdomain": service,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": workers.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [*_lost_node_tolerations(), *(t.to_dict() for t in workers.tolerations)],
        "containers": [_build_trainer(spec, image)],
        "volumes": _build_volumes(spec, config_map),
    }
    pod.update(_placement(workers, run_uid))
    if workers.service_account_name:
        pod["serviceAccountName"] = workers.service_account_name
    if workers.priority_class_name:
        pod["priorityClassName"] = workers.priority_class_name
    if workers.image_pull_secrets:
        pod["imagePullSecrets"] = [secret.to_dict() for secret in workers.image_pull_secrets]
    return pod


def _build_trainer(spec: RunSpec, image: str) -> Object:
    workers = spec.workers
    limits, requests = workers.resources.limits, workers.resources.requests
    own = {**ENVIRONMENT, **{variable.name: variable.value for variable in workers.env}}
    secret = _tracking_secrets(spec.tracking)
    taken = {variable["name"] for variable in secret}
    # An image of the user's own has an entry point of its own, or none.
    command = {"command": [LAUNCHER]} if spec.stage == "Custom" else {}
    return {
        "name": TRAINER,
        "image": image,
        **command,
        "args": [str(RUN_FILE_FOLDER / RUN_FILE_NAME)],
        "env": [
            *({"name": name, "value": value} for name, value in own.items() if name not in taken),
            *secret,
        ],
        "resources": {
            "limits": {name: str(quantity) for name, quantity in limits.items()},
            "requests": {name: str(quantity) for name, quantity in {**limits, **requests}.items()},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": str(TERMINATION_LOG),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _build_mounts(spec),
    }


def _tracking_secrets(tracking: Tracking | None) -> list[Object]:
    """Returns the variables that the kubelet fills from the trackers' Secrets.

    Each by name, since a whole Secret could set any variable. Those of MLflow may be missing one by
    one: a server takes a token or an account, and the trainer says which are not there.
    """
    named: list[tuple[str, str, bool]] = []
    if tracking is not None and tracking.wandb is not None:
        named.append((WANDB_KEY, tracking.wandb.secret_name, False))
    if tracking is not None and tracking.mlflow is not None and tracking.mlflow.secret_name:
        named += [(key, tracking.mlflow.secret_name, True) for key in MLFLOW_KEYS]
    return [
        {
            "name": key,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}},
        }
        for key, secret, optional in named
    ]


def _build_mounts(spec: RunSpec) -> list[Object]:
    mounts: list[Object] = [
        {"name": SCRATCH, "mountPath": str(SCRATCH_FOLDER)},
        {"name": SCRATCH, "mountPath": "/tmp", "subPath": "tmp"},
        {"name": SHARED_MEMORY, "mountPath": str(SHARED_MEMORY_FOLDER)},
        # Whole folders, no subPath: a new authority in the ConfigMap reaches running pods.
        {"name": RUN_FILE, "mountPath": str(RUN_FILE_FOLDER), "readOnly": True},
        {"name": AUTHORITY, "mountPath": str(CA_FOLDER), "readOnly": True},
        {"name": TOKEN, "mountPath": str(TOKEN_FILE.parent), "readOnly": True},
    ]
    if spec.storage.secret_name:
        mounts.append({"name": STORAGE, "mountPath": str(SECRET_FOLDER), "readOnly": True})
    return mounts


def _build_volumes(spec: RunSpec, config_map: str) -> list[Object]:
    scratch = spec.workers.scratch.size_limit
    volumes: list[Object] = [
        {"name": SCRATCH, "emptyDir": {"sizeLimit": str(scratch)} if scratch else {}},
        {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory"}},
        {"name": RUN_FILE, "configMap": _one_key(config_map, RUN_FILE_NAME)},
        {"name": AUTHORITY, "configMap": _one_key(config_map, CA_FILE_NAME)},
        {"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": _token()}]}},
    ]
    if spec.storage.secret_name:
        secret = {"secretName": spec.storage.secret_name, "optional": False, "defaultMode": 0o440}
        volumes.append({"name": STORAGE, "secret": secret})
    return volumes


def _one_key(config_map: str, key: str) -> Object:
    return {"name": config_map, "items": [{"key": key, "path": key}]}


def _token() -> Object:
    return {
        "audience": TOKEN_AUDIENCE,
        "expirationSeconds": TOKEN_SECONDS,
        "path": TOKEN_FILE.name,
    }


def _placement(workers: Workers, run_uid: str) -> Object:
    """Returns where the pods want to be: as the user says, else on different nodes if possible."""
    placement: Object = {}
    if workers.node_selector:
        placement["nodeSelector"] = dict(workers.node_selector)
    if workers.affinity is not None:
        return {**placement, "affinity": workers.affinity}
    if workers.nodes > 1:
        placement["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {LABEL_RUN_UID: run_uid}},
            }
        ]
        term = {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {LABEL_RUN_UID: run_uid}},
        }
        placement["affinity"] = {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "podAffinityTerm": term}
                ]
            }
        }
    return placement


def _lost_node_tolerations() -> list[Object]:
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": NODE_LOST_SECONDS,
        }
        for state in ("not-ready", "unreachable")
    ]
