"""Tokens per second of SFT through llmtrain, over those of a plain TRL script.

Both train the same packed sequences of the same model (a Llama of 110 million random weights,
LoRA, fp32 on this machine's CPU) with the same optimizer; both save every few steps. Ours runs
under the whole launcher: checkpoints are hashed and uploaded, the log is shipped, and progress is
posted to a small server of this process. Loading and preparing the data do not count:
`train_runtime` is transformers' own time from the first step to the last, saves included.

A pair runs at once, each side on half of the cores, and the sides change halves from pair to pair:
a slow minute of the machine hits both. (One after the other, the ratio of a pair was anything from
0.7 to 1.5 on a virtual machine with neighbours.) What our launcher does beside training is paid
from our half.

    python -m benchmarks.sft_throughput --pairs 7
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SETTINGS = {
    "max_length": 128,
    "steps": 24,
    "micro_batch": 1,
    "accumulation": 2,
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "save_steps": 8,
}
TARGET = 0.97
STUDENT_T_95 = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 6: 2.015, 7: 1.943, 8: 1.895, 9: 1.860}
"""One-sided 95 % quantile of Student's t by number of pairs (degrees of freedom: one less)."""


def build_model(folder: Path) -> int:
    """Writes the model and its tokenizer; returns its number of weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = {"<|endoftext|>": 0}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        alphabet[letter] = len(alphabet)
    bytes_only = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bytes_only, eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def write_rows(path: Path) -> None:
    """Writes prompts and completions, enough for one epoch of all steps."""
    chance = random.Random(0)
    rows = []
    for _ in range(400):
        words = [chance.choice(["red", "blue", "green", "small", "large"]) for _ in range(12)]
        rows.append({"prompt": " ".join(words[:6]), "completion": " " + " ".join(words[6:])})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def operator() -> Iterator[tuple[str, list[bytes]]]:
    """Stands in for the operator; yields its URL and the reports that it has taken."""
    reports: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Takes a report."""
            reports.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Keeps quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/progress", reports
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Cores:
    """The part of the machine that one side of a pair has."""

    numbers: tuple[int, ...]

    def python(self, arguments: list[str]) -> None:
        """Runs Python on these cores to its end; exits with its output if it fails."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(len(self.numbers)),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        pinned = ["taskset", "--cpu-list", ",".join(map(str, self.numbers)), sys.executable]
        done = subprocess.run(
            [*pinned, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments[:2])} failed:\n{done.stdout}\n{done.stderr}")


def halves() -> tuple[Cores, Cores]:
    """Returns the cores of this machine in two equal parts; an odd one out is idle."""
    own = sorted(os.sched_getaffinity(0))
    half = len(own) // 2
    if half == 0:
        raise SystemExit("this machine has one core: two sides at once need two")
    return Cores(tuple(own[:half])), Cores(tuple(own[half : 2 * half]))


def run_ours(model: Path, rows: Path, folder: Path, cores: Cores) -> float:
    """Returns the tokens per second of one run under our launcher."""
    out = folder / "out"
    spec: dict[str, Any] = {
        "stage": "SFT",
        "model": {"uri": f"file://{model}/"},
        "datasets": [{"uri": f"file://{rows}", "format": "PromptCompletion"}],
        "sft": {"packing": True},
        "tuning": {"method": "LoRA"},
        "training": {
            "maxSteps": SETTINGS["steps"],
            "globalBatchSize": SETTINGS["micro_batch"] * SETTINGS["accumulation"],
            "microBatchSize": SETTINGS["micro_batch"],
            "maxLength": SETTINGS["max_length"],
            "learningRate": SETTINGS["learning_rate"],
            "loggingSteps": SETTINGS["logging_steps"],
        },
        "checkpoint": {"everySteps": SETTINGS["save_steps"]},
        "output": {"uri": f"file://{out}/"},
    }
    run_file = folder / "run.json"
    command = ["-m", "llmtrain_trainer", str(run_file), "--scratch", str(folder / "scratch")]
    with operator() as (url, reports):
        run = {"name": "throughput", "attempt": 1, "progressUrl": url, "spec": spec}
        run_file.write_text(json.dumps(run))
        cores.python(command)
    if not any(json.loads(report).get("progress") for report in reports):
        raise SystemExit("no progress was posted, so the comparison would not be fair")
    results = json.loads((out / "results" / "all_results.json").read_text())
    log = (out / "results" / "trainer_log.jsonl").read_text().splitlines()
    tokens = max(json.loads(line).get("total_tokens", 0) for line in log)
    return float(tokens / results["train_runtime"])


def run_bare(model: Path, rows: Path, folder: Path, cores: Cores) -> float:
    """Returns the tokens per second of one run of the plain script."""
    script = Path(__file__).with_name("bare_trl_sft.py")
    arguments = [str(model), str(rows), str(folder), json.dumps(SETTINGS)]
    cores.python([str(script), *arguments])
    speed = json.loads((folder / "speed.json").read_text())
    return float(speed["tokens"] / speed["seconds"])


def run_pair(model: Path, rows: Path, folder: Path, ours: Cores, bare: Cores) -> dict[str, float]:
    """Returns the tokens per second of both sides, run at once."""
    with ThreadPoolExecutor(2) as pool:
        sides = {}
        for name, run, cores in (("ours", run_ours, ours), ("bare", run_bare, bare)):
            place = folder / name
            place.mkdir(parents=True)
            sides[name] = pool.submit(run, model, rows, place, cores)
        return {name: side.result() for name, side in sides.items()}


def lower_bound(ratios: list[float]) -> float:
    """Returns the one-sided 95 % lower bound of the mean ratio, by Student's t over logarithms."""
    logarithms = [math.log(ratio) for ratio in ratios]
    error = statistics.stdev(logarithms) / math.sqrt(len(ratios))
    return math.exp(statistics.mean(logarithms) - STUDENT_T_95[len(ratios)] * error)


def main() -> int:
    """Prints a line per pair and the ratio; returns 1 below the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, choices=sorted(STUDENT_T_95))
    pairs = parser.parse_args().pairs
    first, second = halves()
    with tempfile.TemporaryDirectory() as folder:
        model, rows = Path(folder, "model"), Path(folder, "rows.jsonl")
        weights = build_model(model)
        write_rows(rows)
        print(f"{weights / 1e6:.0f}M weights, {SETTINGS}, {len(first.numbers)} threads a side")
        ratios = []
        for pair in range(pairs):
            ours, bare = (first, second) if pair % 2 == 0 else (second, first)
            speeds = run_pair(model, rows, Path(folder, f"pair-{pair}"), ours, bare)
            ratios.append(speeds["ours"] / speeds["bare"])
            print(
                f"pair {pair + 1}: llmtrain {speeds['ours']:.1f} tokens/s,"
                f" plain TRL {speeds['bare']:.1f} tokens/s, ratio {ratios[-1]:.3f}",
                flush=True,
            )
    bound = lower_bound(ratios)
    print(
        f"llmtrain over plain TRL: median {statistics.median(ratios):.3f},"
        f" lower 95 % bound {bound:.3f} (target {TARGET})"
    )
    return 0 if bound >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
