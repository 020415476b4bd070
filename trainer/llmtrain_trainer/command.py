"""One process of a command: `python -m llmtrain_trainer.command WORKDIR`, `stage: Custom`.

Stands where `worker` stands in the other stages: started by torchrun, or by the launcher where the
command starts processes itself. Waits for `job.json` and then becomes the command, so that signals
and exit codes are the command's own.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmtrain_api.errors import ConfigError
from llmtrain_api.exits import EXIT_POLICIES
from llmtrain_trainer.failures import rank_of_process, report
from llmtrain_trainer.gang import die_with_the_launcher
from llmtrain_trainer.workdir import Job, data_folder, output_folder, say, wait_for_job

_VARIABLE = re.compile(r"\$(\$?)\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


def main(argv: Sequence[str]) -> int:
    """Becomes the command; returns an exit code only where it cannot."""
    die_with_the_launcher()
    folder = Path(argv[0])
    rank = rank_of_process()
    job = wait_for_job(folder)
    custom = job.run.spec.custom
    if custom is None:
        raise ValueError(f"stage {job.run.spec.stage} has no command")
    environment = environment_of(job, folder, os.environ)
    words = expand([*custom.command, *custom.args], environment)
    if rank == 0:
        say(folder, "Training", f"running {words[0]}")
    try:
        os.execvpe(words[0], words, environment)
    except OSError as error:
        refusal = ConfigError(
            "custom.command",
            f"{words[0]} cannot be run: {error.strerror}",
            "name a program of the image in workers.image, or the full path of one",
        )
        sys.stderr.write(f"{refusal}\n")
        return EXIT_POLICIES[report(refusal, folder, rank, None)].code


def environment_of(job: Job, folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Returns the command's environment: where its inputs are, and where its output belongs.

    What there is not is empty rather than missing, so that `$(LLMTRAIN_RESUME_FROM)` is nothing.
    """
    output = output_folder(folder)
    resume_from = str(output / Path(job.resume_from).name) if job.resume_from else ""
    # Progress goes to this pod: a proxy for the rest of the world has no part in it.
    past_proxies = given.get("no_proxy") or given.get("NO_PROXY")
    no_proxy = f"{past_proxies},127.0.0.1" if past_proxies else "127.0.0.1"
    return {
        **given,
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
        "LLMTRAIN_MODEL_DIR": job.model_path,
        "LLMTRAIN_DATA_DIR": str(data_folder(folder)),
        "LLMTRAIN_OUTPUT_DIR": str(output),
        "LLMTRAIN_RESUME_FROM": resume_from,
        "LLMTRAIN_SAVE_STEPS": str(job.run.spec.checkpoint.every_steps),
    }


def expand(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Returns `words` with the value of NAME for `$(NAME)`, as Kubernetes does it.

    One that is not known stays as it stands, and `$$(NAME)` is `$(NAME)`.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        return environment.get(match[2], match[0])

    return [_VARIABLE.sub(value, word) for word in words]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
