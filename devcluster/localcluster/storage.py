"""The image registry and the S3 server of the cluster."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster import programs
from localcluster.control_plane import answers
from localcluster.settings import BUCKETS, REGION, REGISTRY, REGISTRY_DATA, S3, STATE
from localcluster.shell import write
from localcluster.supervisor import Process

OBJECTS = STATE / "s3"
_KEYS = STATE / "s3-keys.json"


@dataclass(frozen=True)
class S3Keys:
    """Two accounts: one that may do everything, one that may do nothing."""

    access: str
    secret: str
    denied_access: str
    denied_secret: str


def s3_keys() -> S3Keys:
    """Returns the keys of this cluster, made at random the first time."""
    if not _KEYS.exists():
        names = ("llmtrain", secrets.token_hex(24), "denied", secrets.token_hex(24))
        write(_KEYS, json.dumps(asdict(S3Keys(*names))))
    return S3Keys(**json.loads(_KEYS.read_text()))


def s3() -> Process:
    """Returns the S3 server: objects are files below `.devcluster/s3/BUCKET/`."""
    keys = s3_keys()
    for bucket in BUCKETS:
        (OBJECTS / bucket).mkdir(parents=True, exist_ok=True)
    denied = {
        "access": keys.denied_access,
        "secret": keys.denied_secret,
        "role": "user",  # May use what it owns, and it owns nothing.
        "userID": 65532,
        "groupID": 65532,
        "projectID": 0,
    }
    accounts = STATE / "s3-accounts" / "users.json"
    if not accounts.exists():
        write(accounts, json.dumps({"accessAccounts": {keys.denied_access: denied}}))
    argv = [programs.path("versitygw"), "--port", S3, "--region", REGION, "--quiet"]
    argv += ["--health", "/healthz", "--iam-dir", str(accounts.parent), "posix", str(OBJECTS)]
    env = {"ROOT_ACCESS_KEY": keys.access, "ROOT_SECRET_KEY": keys.secret}
    return Process("s3", argv, lambda: answers(f"http://{S3}/healthz"), env=env)


def registry() -> Process:
    """Returns the image registry."""
    config = STATE / "registry.yaml"
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(REGISTRY_DATA)}},
        "http": {"addr": REGISTRY, "secret": "a single instance needs none"},
    }
    write(config, json.dumps(settings))
    argv = [programs.path("registry"), "serve", str(config)]
    url = f"http://{REGISTRY}/v2/"
    env = {"OTEL_TRACES_EXPORTER": "none"}
    return Process("registry", argv, lambda: answers(url), files=(config,), env=env)


def trust_registry() -> Path:
    """Writes the host files by which containerd pulls from the registry without TLS."""
    folder = STATE / "registry-hosts"
    text = f'[host."http://{REGISTRY}"]\n  capabilities = ["pull", "resolve"]\n'
    write(folder / REGISTRY / "hosts.toml", text, mode=0o644)
    return folder
