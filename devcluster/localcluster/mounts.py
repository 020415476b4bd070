"""Mounts below a folder: found, and undone before the folder is deleted."""

import shutil
from pathlib import Path

from localcluster.shell import DevclusterError, succeeds


def _below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # The kernel writes blanks and the like as `\040`.
    plain = [point.encode().decode("unicode_escape") for point in points]
    return [point for point in plain if Path(point).is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    """Unmounts all below a folder, the deepest first."""
    for point in sorted(_below(folder.resolve()), reverse=True):
        if not succeeds(["umount", point]):
            succeeds(["umount", "--lazy", point])


def delete(folder: Path) -> None:
    """Deletes a folder, unless something is mounted in it: that would be deleted too.

    Raises:
        DevclusterError: Something is mounted there still.
    """
    if left := _below(folder.resolve()):
        raise DevclusterError(f"still mounted: {', '.join(left)}. Unmount them, then try again")
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
