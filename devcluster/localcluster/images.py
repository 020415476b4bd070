"""Builds the images `operator` and `trainer`.

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
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from localcluster import base_image
from localcluster.buildah import IMAGES, TEMPORARY, buildah
from localcluster.settings import REPOSITORY, STATE
from localcluster.shell import DevclusterError, lock, run, step, succeeds, write

TARGETS = ("operator", "trainer")
_SOURCES = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml")
_SOURCE_FOLDERS = ("operator", "requirements", "trainer")
BUILT = STATE / "images-built.json"
"""The ids of the images that were built last."""

# Settings of the machine by which pip and uv reach packages. They go in as a secret.
_INDEX_SETTINGS = (
    *("PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_TRUSTED_HOST"),
    *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_HTTP_TIMEOUT", "UV_INDEX", "UV_INDEX_URL"),
    *("UV_INSECURE_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)
_DAYS_KEPT = 7
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
            _remove_old()
    write(BUILT, json.dumps(ids))


def unnamed_since(listed: list[dict[str, Any]], moment: datetime) -> list[str]:
    """Returns the ids of images without a name made before `moment`, newest first."""
    old = [
        (made, str(image["id"]))
        for image in listed
        if (made := datetime.fromisoformat(image["createdatraw"])) < moment
        and not image.get("names")
    ]
    return [identity for _, identity in sorted(old, reverse=True)]


def _remove_old() -> None:
    """Removes the layers of earlier builds, gigabytes each, but for those still built upon."""
    listed = json.loads(run(buildah("images", "--all", "--json")) or "[]")
    for identity in unnamed_since(listed, datetime.now(UTC) - timedelta(days=_DAYS_KEPT)):
        succeeds(buildah("rmi", identity))  # buildah keeps what others stand on, and says so.


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
