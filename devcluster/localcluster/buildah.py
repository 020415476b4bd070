"""Where buildah keeps layers: in the cache, apart from what else the machine builds."""

from localcluster.settings import CACHE, RUN

IMAGES = CACHE / "images"
TEMPORARY = IMAGES / "tmp"
"""Also holds the packages that one build leaves for the next."""


def buildah(command: str, *arguments: str) -> list[str]:
    """Returns the command line of a buildah command."""
    stores = ["--root", str(IMAGES / "layers"), "--runroot", f"{RUN}-images"]
    return ["buildah", *stores, "--storage-driver", "overlay", command, *arguments]
