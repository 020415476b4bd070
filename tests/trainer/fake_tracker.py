"""Stands in for a tracker's process: `fake_tracker.py SERVICE WORKDIR`, with FAKE_TRACKER a word.

`good` takes everything, `deaf` never ends, `broken` dies like a library that cannot be imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    service, folder = sys.argv[1], Path(sys.argv[2])
    how = os.environ["FAKE_TRACKER"]
    sys.stdout.write(f"{service} is {how}\n")
    sys.stdout.flush()
    if how == "broken":
        sys.stderr.write("ImportError: no such symbol\n")
        sys.exit(1)
    while how == "deaf" or not (folder / "tracking-end").exists():
        time.sleep(0.01)
    seen = sorted(name for name in os.environ if name.endswith(("_KEY", "_TOKEN")))
    lines = (folder / "trainer_log.jsonl").read_text().splitlines()
    told = {"end": (folder / "tracking-end").read_text(), "lines": len(lines), "keys": seen}
    Path(os.environ["FAKE_TRACKER_TOLD"]).write_text(json.dumps(told))
    (folder / f"tracking-{service}.json").write_text(json.dumps({"whole": True, "trouble": ""}))


if __name__ == "__main__":
    main()
