"""What the kernel says of this container: its share of the CPUs, and its kills for memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def usable_cores(root: Path = _ROOT) -> int:
    """Returns the CPU cores that this container may use, rounded down, at least 1."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, period = _quota(root)
    if quota > 0 and period > 0:
        cores = min(cores, quota / period)
    return max(1, int(cores))


def _quota(root: Path) -> tuple[float, float]:
    """Returns the CPU quota and its period in microseconds; quota 0 for none."""
    unified = root / "cpu.max"
    if unified.exists():
        quota, period = unified.read_text(encoding="utf-8").split()
        return (0.0 if quota == "max" else float(quota)), float(period)
    legacy = root / "cpu" / "cpu.cfs_quota_us"
    if legacy.exists():
        period_file = legacy.with_name("cpu.cfs_period_us")
        return float(legacy.read_text("utf-8")), float(period_file.read_text("utf-8"))
    return 0.0, 0.0


def oom_kills(root: Path = _ROOT) -> int:
    """Returns how many processes of this container the kernel has killed for memory so far."""
    for name in ("memory.events", "memory/memory.oom_control"):  # cgroup v2, v1.
        file = root / name
        if file.exists():
            match = re.search(r"^oom_kill (\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
            return int(match[1]) if match else 0
    return 0
