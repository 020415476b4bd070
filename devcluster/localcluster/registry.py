"""Pushes the images to a registry, and notes in `images.json` where a cluster finds them.

The registry is that of the cluster made here; with OWN_CLUSTER=1 it is the user's, IMAGE_REGISTRY.
"""

import json
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localcluster import cluster
from localcluster.buildah import IMAGES, TEMPORARY, buildah
from localcluster.control_plane import answers
from localcluster.images import BUILT, TARGETS
from localcluster.settings import OWN_CLUSTER, REGISTRY, REGISTRY_DATA, STATE
from localcluster.shell import DevclusterError, lock, run, say, step, write

_MANIFEST = STATE / "images.json"


@dataclass(frozen=True)
class Registry:
    """Where images go."""

    prefix: str
    """Of their names: address, and the folder or the start of the name."""
    secure: bool
    """Whether it shows a certificate that this machine trusts."""
    ours: bool = False


_OURS = Registry(f"{REGISTRY}/llmtrain/", secure=False, ours=True)


def users_registry(env: Mapping[str, str]) -> Registry:
    """Returns the registry that the user's environment names.

    Raises:
        DevclusterError: IMAGE_REGISTRY is not set, or is no address of a registry.
    """
    address = env.get("IMAGE_REGISTRY", "").rstrip("/")
    if not address or "://" in address:
        raise DevclusterError(
            f"IMAGE_REGISTRY is `{address}`: set it to a host, with a port or a folder where "
            "needed and without `https://`, for instance registry.example.com/team"
        )
    # A dash, because some registries know no folders inside a user's.
    return Registry(f"{address}/llmtrain-", secure=env.get("IMAGE_REGISTRY_INSECURE") != "1")


def push() -> None:
    """Pushes the images that were built last, and writes `images.json` with their digests.

    Raises:
        DevclusterError: They are not built, or the registry does not run or take them.
    """
    registry = users_registry(os.environ) if OWN_CLUSTER else _OURS
    if not BUILT.exists():
        raise DevclusterError("the images are not built: run `devcluster images build` first")
    if registry.ours:
        cluster.require_ours()
        if not answers(f"http://{REGISTRY}/v2/"):
            raise DevclusterError("the registry does not run: run `devcluster up` first")
    ids = json.loads(BUILT.read_text())
    references = {}
    with lock(IMAGES / "push.lock"):
        for name in TARGETS:
            digest = (
                _push_once(name, ids[name]) if registry.ours else _push(registry, name, ids[name])
            )
            references[name] = f"{registry.prefix}{name}@{digest}"
    write(_MANIFEST, json.dumps(references, indent=1) + "\n", mode=0o644)
    for name, reference in references.items():
        say(f"{name:10} {reference}")


def _push_once(name: str, image: str) -> str:
    """Pushes an image unless our registry has it. Returns the digest of its manifest there."""
    record = REGISTRY_DATA / "pushed" / f"{image}.digest"
    if record.exists() and _is_in_ours(name, record.read_text()):
        return record.read_text()
    digest = _push(_OURS, name, image)
    write(record, digest)
    return digest


def _is_in_ours(name: str, digest: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{REGISTRY}/v2/llmtrain/{name}/manifests/{digest}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    try:
        with opener.open(urllib.request.Request(url, headers=accept, method="HEAD"), timeout=5):
            return True
    except OSError:
        return False


def _push(registry: Registry, name: str, image: str) -> str:
    """Pushes an image; layers that are there are not sent again. Returns its manifest's digest."""
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TEMPORARY) as folder, step(f"image {name} pushed"):
        file = Path(folder) / "digest"
        options = ["--quiet", f"--tls-verify={str(registry.secure).lower()}"]
        options += ["--digestfile", str(file)]
        # Level 1: on two cores, a better compression costs more time than it saves.
        options += ["--compression-format", "zstd", "--compression-level", "1"]
        env = os.environ | {"TMPDIR": str(TEMPORARY)}
        if registry.ours:  # Nothing between us and our own bridge.
            env = {key: value for key, value in env.items() if "proxy" not in key.lower()}
        run(buildah("push", *options, image, f"docker://{registry.prefix}{name}:dev"), env=env)
        return file.read_text().strip()
