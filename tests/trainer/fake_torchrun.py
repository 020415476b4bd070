"""Stands in for torchrun in the launcher's unit tests: spawns fake workers, without torch.

python fake_torchrun.py FAILURES_FILE FIRST_RANK PROCESSES WORKDIR
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WORKER = Path(__file__).with_name("fake_worker.py")


def main() -> int:
    failures, first, count, workdir = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    processes = []
    for local in range(count):
        folder = Path(workdir) / "processes" / "run" / "attempt_0" / str(local)
        folder.mkdir(parents=True)
        with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-S", "-E", str(WORKER), workdir],
                    env={**os.environ, "RANK": str(first + local)},
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            )

    def kill_all(*_: object) -> None:
        for process in processes:
            process.kill()

    signal.signal(signal.SIGTERM, kill_all)
    while True:
        codes = [process.poll() for process in processes]
        bad = [(first + rank, code) for rank, code in enumerate(codes) if code]
        if bad:
            for process in processes:
                process.kill()
            ends = [{"rank": rank, "exit_code": code} for rank, code in bad]
            Path(failures).write_text(json.dumps(ends))
            return 1
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
