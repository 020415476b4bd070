"""Compiles the pinned programs from source, once per machine.

Every version is in a `go.mod` under `programs/`. The result goes to a folder of the cache named
for a digest of those files, so another clone of the same version compiles nothing, and a changed
version never overwrites programs that are running.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from localcluster.settings import CACHE, KUBERNETES_VERSION, PROGRAMS
from localcluster.shell import DevclusterError, lock, run, say, step

_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-X {_VERSION}.gitVersion={KUBERNETES_VERSION} "
    f"-X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}"
)
_MODULES = {
    # Folder: packages to build, linker flags. `tool` stands for the tool lines of its go.mod.
    "kubernetes": (["tool", "./coredns"], _KUBERNETES_FLAGS),
    "etcd": (["tool"], ""),
    "storage": (["tool"], ""),
    "pause": (["."], ""),
}
# The compiler and linker collect their garbage less often: a fifth of the time on two cores
# (200 s to 165 s for `storage`). The limit keeps them from taking more than a small machine has.
_COMPILER_MEMORY = {"GOGC": "400", "GOMEMLIMIT": "1500MiB"}
PROGRAM_NAMES = (
    *("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl"),
    *("kubelet", "helm", "coredns", "etcd", "registry", "versitygw", "pause"),
)
PAUSE_IMAGE = "localhost/llmtrain-pause:1"


def _version() -> str:
    """Returns a digest of all that decides what is compiled."""
    digest = hashlib.sha256(f"1 {platform.machine()} {_MODULES}".encode())
    for file in sorted(PROGRAMS.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(PROGRAMS)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def folder() -> Path:
    """Returns the folder of the compiled programs, whether or not they are compiled yet."""
    return CACHE / _version()


def path(name: str) -> str:
    """Returns the path of a compiled program."""
    return str(folder() / "bin" / name)


def pause_archive() -> Path:
    """Returns the path of the image that holds a pod's namespaces open."""
    return folder() / "pause.tar"


def build() -> Path:
    """Compiles all programs unless the cache has them. Returns their folder.

    Raises:
        DevclusterError: A program does not compile.
    """
    target = folder()
    if target.exists():
        return target
    with lock(CACHE / "build.lock"):
        if target.exists():  # Another clone compiled it while this one waited.
            return target
        say("compiling the cluster's programs (about 9 minutes on 2 cores, once per machine)")
        new = CACHE / f"new-{_version()}"
        shutil.rmtree(new, ignore_errors=True)
        (new / "bin").mkdir(parents=True)
        for module in _MODULES:
            _compile(module, new / "bin")
        (new / "bin" / "server").rename(new / "bin" / "etcd")
        missing = [name for name in PROGRAM_NAMES if not (new / "bin" / name).exists()]
        if missing:
            raise DevclusterError(f"`go build` did not make {', '.join(missing)}")
        _pack_pause(new)
        new.rename(target)
    return target


def _compile(module: str, target: Path) -> None:
    packages, flags = _MODULES[module]
    env = _COMPILER_MEMORY | os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    with step(f"go build: {module}"):
        start = time.monotonic()
        command = ["go", "build", "-trimpath", "-ldflags", f"-s -w {flags}".strip()]
        process = subprocess.Popen(
            [*command, "-o", f"{target}/", *packages],
            cwd=PROGRAMS / module,
            env=env,
            text=True,
            stderr=subprocess.PIPE,
        )
        assert process.stderr
        words: list[str] = []
        for line in process.stderr:
            if not line.startswith("go: downloading"):
                words.append(line)
                say(f"{time.monotonic() - start:8.1f} s  {line.rstrip()}")
        if process.wait() != 0:
            raise DevclusterError(f"`go build` failed in `{PROGRAMS / module}`: {''.join(words)}")


def _pack_pause(target: Path) -> None:
    """Writes the pause program as an image archive that containerd can import."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(target / "bin" / "pause", "pause")
    machine = run(["go", "env", "GOARCH"]).strip()
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65532"},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    parts = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(target / "pause.tar", "w") as archive:
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
