"""Builds the images `operator` and `trainer`, and pushes them to the cluster's registry.

Layers live in the cache, shared by all clones. What was built is known by a digest of all that
goes into the images, so nothing is done where nothing changed.
"""

import hashlib
import json
import os
import shlex
import subprocess
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from localcluster import base_image
from localcluster.buildah import IMAGES, TEMPORARY, buildah
from localcluster.control_plane import answers
from localcluster.settings import REGISTRY, REGISTRY_DATA, REPOSITORY, STATE
from localcluster.shell import DevclusterError, lock, run, say, step, succeeds, write

TARGETS = ("operator", "trainer")
_SOURCES = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml")
_SOURCE_FOLDERS = ("operator", "requirements", "trainer")
_MANIFEST = STATE / "images.json"
_BUILT = STATE / "images-built.json"

# Settings of the machine by which pip and uv reach packages. They go in as a secret.
_INDEX_SETTINGS = (
    *("PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_TRUSTED_HOST"),
    *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_HTTP_TIMEOUT", "UV_INDEX", "UV_INDEX_URL"),
    *("UV_INSECURE_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)
_UV_CACHE_INSIDE = "/tmp/uv-of-the-machine"
_CERTIFICATE_SETTINGS = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def _source_files() -> Iterator[Path]:
    for name in _SOURCES:
        yield REPOSITORY / name
    for folder in _SOURCE_FOLDERS:
        for file in sorted((REPOSITORY / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".sh":
                yield file


def _inputs() -> str:
    """Returns a digest of all that goes into the images."""
    digest = hashlib.sha256(b"1")
    for file in _source_files():
        digest.update(f"{file.relative_to(REPOSITORY)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _version() -> str:
    text = (REPOSITORY / "pyproject.toml").read_text()
    return str(tomllib.loads(text)["project"]["version"])


def _index_settings(env: Mapping[str, str]) -> tuple[str, Path | None]:
    """Returns the lines of the secret `index`, and the file of the secret `certificates`."""
    values = {key: env[key] for key in _INDEX_SETTINGS if env.get(key)}
    bundle = next((Path(env[key]) for key in _CERTIFICATE_SETTINGS if env.get(key)), None)
    if bundle and bundle.is_file():
        for key in ("SSL_CERT_FILE", "PIP_CERT"):
            values[key] = "/run/secrets/certificates"
    else:
        bundle = None
    if uv_cache().is_dir():
        values["UV_CACHE_DIR"] = _UV_CACHE_INSIDE
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()), bundle


def uv_cache() -> Path:
    """Returns where the machine's own uv keeps packages: the image's are mostly the same."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("UV_CACHE_DIR") or caches / "uv")


def _record(inputs: str) -> Path:
    return IMAGES / "built" / f"{inputs}.json"


def _built(inputs: str) -> dict[str, str] | None:
    """Returns the ids of the images built from `inputs`, if they are still there."""
    try:
        ids: dict[str, str] = json.loads(_record(inputs).read_text())
    except FileNotFoundError:
        return None
    there = all(succeeds(buildah("inspect", "--type", "image", ids[name])) for name in TARGETS)
    return ids if there else None


def build() -> None:
    """Builds both images unless they exist, and notes their ids for `push`."""
    with lock(IMAGES / "build.lock"):
        inputs = _inputs()
        ids = _built(inputs)
        if ids is None:
            run(buildah("rm", "--all"))  # What an interrupted build left, if any.
            base_image.ensure()
            TEMPORARY.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=TEMPORARY) as folder:
                ids = {name: _build_one(name, Path(folder)) for name in TARGETS}
            if _inputs() == inputs:  # Otherwise a file was changed meanwhile.
                write(_record(inputs), json.dumps(ids))
    write(_BUILT, json.dumps(ids))


def _build_one(target: str, folder: Path) -> str:
    lines, bundle = _index_settings(os.environ)
    index, id_file = folder / "index", folder / "id"
    write(index, lines)
    options = ["--layers", "--pull=never", "--network", "host", "--isolation", "chroot"]
    options += ["--target", target, "--build-arg", f"VERSION={_version()}"]
    options += ["--secret", f"id=index,src={index}", "--iidfile", str(id_file)]
    if uv_cache().is_dir():
        options += ["--volume", f"{uv_cache()}:{_UV_CACHE_INSIDE}"]
    if bundle:
        options += ["--secret", f"id=certificates,src={bundle}"]
    log = IMAGES / f"{target}.log"
    with step(f"image {target} built"), log.open("wb") as output:
        # buildah reads the settings of proxies from its own environment too.
        done = subprocess.run(
            buildah("build", *options, "--file", "Dockerfile", "."),
            cwd=REPOSITORY,
            env=os.environ | {"TMPDIR": str(TEMPORARY)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode != 0:
        run(buildah("rm", "--all"))
        words = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise DevclusterError(f"`buildah build` failed. The last lines of `{log}`:\n{words}")
    return id_file.read_text().strip().removeprefix("sha256:")


def _is_in_registry(name: str, digest: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{REGISTRY}/v2/llmtrain/{name}/manifests/{digest}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    try:
        with opener.open(urllib.request.Request(url, headers=accept, method="HEAD"), timeout=5):
            return True
    except OSError:
        return False


def push() -> None:
    """Pushes the images that were built last, and writes `images.json` with their digests.

    Raises:
        DevclusterError: They are not built, or the registry does not run.
    """
    if not _BUILT.exists():
        raise DevclusterError("the images are not built: run `devcluster images build` first")
    if not answers(f"http://{REGISTRY}/v2/"):
        raise DevclusterError("the registry does not run: run `devcluster up` first")
    ids = json.loads(_BUILT.read_text())
    references = {}
    with lock(IMAGES / "push.lock"):
        for name in TARGETS:
            digest = _push_one(name, ids[name])
            references[name] = f"{REGISTRY}/llmtrain/{name}@{digest}"
    write(_MANIFEST, json.dumps(references, indent=1) + "\n", mode=0o644)
    for name, reference in references.items():
        say(f"{name:10} {reference}")


def _push_one(name: str, image: str) -> str:
    """Pushes an image unless the registry has it. Returns the digest of its manifest there."""
    record = REGISTRY_DATA / "pushed" / f"{image}.digest"
    if record.exists() and _is_in_registry(name, record.read_text()):
        return record.read_text()
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TEMPORARY) as folder, step(f"image {name} pushed"):
        file = Path(folder) / "digest"
        options = ["--quiet", "--tls-verify=false", "--digestfile", str(file)]
        # Level 1: on two cores, a better compression costs more time than it saves.
        options += ["--compression-format", "zstd", "--compression-level", "1"]
        target = f"docker://{REGISTRY}/llmtrain/{name}:dev"
        done = subprocess.run(
            buildah("push", *options, image, target),
            env={key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
            | {"TMPDIR": str(TEMPORARY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DevclusterError(f"`buildah push` failed: {done.stderr.strip()[-1000:]}")
        digest = file.read_text().strip()
    write(record, digest)
    return digest
