"""What of a machine the last bits of a result depend on."""

from __future__ import annotations

import re
from pathlib import Path


def cpu_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the name of the processor as Linux says it, or nothing where it does not."""
    if not path.exists():
        return ""
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""
