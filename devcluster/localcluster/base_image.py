"""The image that ours are built on: pulled where a registry can be reached, otherwise made.

`debootstrap` makes the same Debian from its packages, under the same name, so the Dockerfile
need not know.
"""

import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from localcluster.buildah import TEMPORARY, buildah
from localcluster.shell import run, say, step, succeeds

NAME = "docker.io/library/debian:bookworm-slim"
_SUITE = "bookworm"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HUB = "https://registry-1.docker.io/v2/"


def ensure() -> None:
    """Has the base image in the local store."""
    if succeeds(buildah("inspect", "--type", "image", NAME)):
        return
    if _hub_answers() and succeeds(["timeout", "120", *buildah("pull", "--quiet", NAME)]):
        return
    say("no image registry can be reached: making the Debian base image from packages")
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with step("base image made"), tempfile.TemporaryDirectory(dir=TEMPORARY) as folder:
        _bootstrap(Path(folder) / "root")


def _hub_answers() -> bool:
    try:
        with urllib.request.urlopen(_HUB, timeout=4):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # It wants a token, so it is there.
    except OSError:
        return False


def _mirror() -> list[str]:
    """Returns the machine's own Debian mirror, or nothing: then debootstrap has a default."""
    if not shutil.which("apt-get"):
        return []
    options = ["--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Component: main"]
    found = [line.split() for line in run(["apt-get", "indextargets", *options]).splitlines()]
    return [words[1] for words in found if words[0] == _SUITE][:1]


def _bootstrap(root: Path) -> None:
    run(["debootstrap", "--variant=minbase", _SUITE, root, *_mirror()])
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    container = run(buildah("from", "scratch")).strip()
    try:
        run(buildah("add", "--quiet", container, str(root), "/"))
        run(
            buildah(
                "config", "--cmd", "bash", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", container
            )
        )
        run(buildah("commit", "--quiet", container, NAME))
    finally:
        run(buildah("rm", container))
