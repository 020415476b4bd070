"""Tokenising and packing running text, beside `datasets.map` at its best number of processes.

Both read the same JSON lines with the same tokenizer and leave sequences of 1,024 tokens on disk:
ours as the stream that `stage: Pretrain` reads, theirs as the two maps of transformers' own
example for causal language models (encode, then join and cut). Reading the file counts, imports
do not. The text is the source code and the manuals of this Python's own packages, so that there is
something of every length. Memory is the peak of the process and its children together, where a
page that several share counts once (PSS); that of the imports, which both have, is told apart. A
warm start is what takes the place of ours where the tokens are in the cache, with this machine's
disk for storage.

    python -m benchmarks.tokenise --megabytes 40 --pairs 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LENGTH = 1024
VOCABULARY = 32_000
SPEED_TARGET = 1.0
MEMORY_TARGET = 0.5
WARM_TARGET = 0.1
_DOCUMENT = 20_000  # Characters; longer files are several documents.
_TRAINED_ON = 3_000_000  # Characters.


def documents(megabytes: float) -> Iterator[str]:
    """Yields texts until there are `megabytes` of them."""
    left = megabytes * 1e6
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix not in (".py", ".md", ".rst", ".txt", ".pyi"):
                continue
            text = path.read_text(encoding="utf-8", errors="ignore")
            for start in range(0, len(text), _DOCUMENT):
                part = text[start : start + _DOCUMENT]
                yield part
                left -= len(part.encode())
                if left <= 0:
                    return


def build_inputs(folder: Path, megabytes: float) -> int:
    """Writes the text and a tokenizer; returns the bytes of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(documents(megabytes))
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "text.jsonl").write_text(rows)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    every = max(1, sum(map(len, texts)) // _TRAINED_ON)
    tokenizer.train_from_iterator(texts[::every], trainer)
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", model_max_length=10**9
    )
    wrapped.save_pretrained(folder / "tokenizer")
    return sum(len(text.encode()) for text in texts)


def ours(inputs: Path, out: Path) -> Callable[[], int]:
    """Returns what is measured of llmtrain; it returns the tokens written."""
    from transformers import AutoTokenizer

    from llmtrain_trainer.data import corpus
    from llmtrain_trainer.data.stream import Stream

    job = job_of(inputs, out)
    tokenizer = AutoTokenizer.from_pretrained(inputs / "tokenizer")

    def measured() -> int:
        corpus.prepare(job, tokenizer, out / "tokens")
        return Stream(out / "tokens", corpus.TRAIN).kind.tokens

    return measured


def warm(inputs: Path, out: Path) -> Callable[[], int]:
    """Returns what is measured of a start with tokens in the cache; it returns their number."""
    from llmtrain_trainer import tokencache
    from llmtrain_trainer.data import corpus, tokenkey
    from llmtrain_trainer.data.stream import Stream

    job = job_of(inputs, out)
    ours(inputs, out)()
    cache, name = tokencache.open_cache(job.run.spec), tokenkey.of(job)
    tokencache.store(cache, name, out / "tokens")

    def measured() -> int:
        tokencache.fetch(cache, tokenkey.of(job), out / "again", lambda message: None)
        return Stream(out / "again", corpus.TRAIN).kind.tokens

    return measured


def job_of(inputs: Path, out: Path) -> Any:
    """Returns the job that reads the text."""
    from llmtrain_trainer.workdir import Job

    path = inputs / "text.jsonl"
    file = {"uri": f"file://{path}", "path": str(path), "size": 0, "etag": "", "sha256": ""}
    spec = {
        "stage": "Pretrain",
        "architecture": {
            "family": "llama",
            "hiddenSize": 64,
            "numHiddenLayers": 1,
            "numAttentionHeads": 1,
        },
        "tokenizer": {"uri": f"file://{inputs}/tokenizer/"},
        "datasets": [{"uri": f"file://{path}", "format": "Text"}],
        "training": {"epochs": 1, "globalBatchSize": 1, "learningRate": 1e-3, "maxLength": LENGTH},
        "output": {"uri": f"file://{out}/output/"},
    }
    run = {"name": "tokenise", "spec": spec}
    return Job.model_validate({"run": run, "restart": 0, "node": 0, "datasetFiles": [file]})


def theirs(inputs: Path, out: Path, processes: int) -> Callable[[], int]:
    """Returns what is measured of `datasets`; it returns the tokens written."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs / "tokenizer")
    end = tokenizer.eos_token_id

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        ids = tokenizer(rows["text"], return_attention_mask=False).input_ids
        return {"input_ids": [[*document, end] for document in ids]}

    def pack(rows: dict[str, list[list[int]]]) -> dict[str, Any]:
        joined = [token for ids in rows["input_ids"] for token in ids]
        starts = range(0, len(joined), LENGTH)  # Keeps the rest of each batch, as we do.
        return {"input_ids": [joined[start : start + LENGTH] for start in starts]}

    def measured() -> int:
        source = str(inputs / "text.jsonl")
        raw = datasets.Dataset.from_json(source, cache_dir=str(out / "cache"))
        number = processes if processes > 1 else None
        encoded = raw.map(encode, batched=True, num_proc=number, remove_columns=["text"])
        packed = encoded.map(pack, batched=True, num_proc=number)
        lengths = packed.data.column("input_ids").combine_chunks().value_lengths()
        return int(lengths.to_numpy().sum())

    return measured


def memory(process: int) -> int:
    """Returns the bytes that a process and its children take, shared pages counted once."""
    folder = Path("/proc", str(process))
    try:
        rollup = (folder / "smaps_rollup").read_text()
        children = [(task / "children").read_text() for task in (folder / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # It has just ended.
        return 0
    own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return own * 1024 + sum(memory(int(child)) for child in " ".join(children).split())


def run_side(side: str, inputs: Path, out: Path, processes: int) -> None:
    """Measures one side in this process and prints the figures as JSON."""
    sides = {"ours": ours, "warm": warm}
    measured = sides[side](inputs, out) if side in sides else theirs(inputs, out, processes)
    before = peak = memory(os.getpid())
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            peak = max(peak, memory(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    tokens = measured()
    seconds = time.perf_counter() - begin
    ended.set()
    watcher.join()
    print(json.dumps({"tokens": tokens, "seconds": seconds, "before": before, "peak": peak}))


def start_side(side: str, inputs: Path, processes: int = 1) -> dict[str, float]:
    """Returns the figures of one side, measured in a process of its own."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "true" if processes == 1 else "false",
    }
    with tempfile.TemporaryDirectory(dir=inputs) as out:
        command = [sys.executable, "-m", "benchmarks.tokenise", "--side", side, str(inputs), out]
        command += ["--processes", str(processes)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout}\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(folder: Path, megabytes: float, pairs: int) -> int:
    """Prints a line per run and the ratios; returns 1 where a target is missed."""
    size = build_inputs(folder, megabytes)
    cores = len(os.sched_getaffinity(0))
    print(f"{size / 1e6:.0f} MB of text, sequences of {LENGTH} tokens, {cores} cores", flush=True)
    others = [("datasets", number) for number in sorted({1, 2, cores})]
    sides = [("ours", 1), ("warm", 1), *others]
    seen: dict[tuple[str, int], list[dict[str, float]]] = {side: [] for side in sides}
    for pair in range(pairs):
        for side in sides if pair % 2 == 0 else sides[::-1]:
            figures = start_side(side[0], folder, side[1])
            seen[side].append(figures)
            print(
                f"{side[0]:8} {side[1]} process(es): {size / 1e6 / figures['seconds']:.2f} MB/s,"
                f" peak {figures['peak'] / 1e6:.0f} MB, of which imports"
                f" {figures['before'] / 1e6:.0f} MB, {figures['tokens']:.0f} tokens",
                flush=True,
            )
    if len({figures["tokens"] for runs in seen.values() for figures in runs}) != 1:
        raise SystemExit("the sides differ in their tokens, so the comparison would not be fair")
    speeds = {
        side: statistics.median(size / 1e6 / figures["seconds"] for figures in runs)
        for side, runs in seen.items()
    }
    best = max(others, key=lambda side: speeds[side])
    peaks = {side: statistics.median(run["peak"] for run in seen[side]) for side in sides}
    speed = speeds["ours", 1] / speeds[best]
    space = peaks["ours", 1] / peaks[best]
    start = speeds["ours", 1] / speeds["warm", 1]
    print(
        f"llmtrain over datasets.map with {best[1]} process(es): speed {speed:.2f}"
        f" (target {SPEED_TARGET}), peak memory {space:.2f} (target {MEMORY_TARGET});"
        f" a warm start over a cold one: {start:.3f} of the time (target {WARM_TARGET})"
    )
    return 0 if speed >= SPEED_TARGET and space <= MEMORY_TARGET and start <= WARM_TARGET else 1


def main() -> int:
    """Runs the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "INPUTS", "OUT"))
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.side:
        side, inputs, out = options.side
        run_side(side, Path(inputs), Path(out), options.processes)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return compare(Path(folder), options.megabytes, options.pairs)


if __name__ == "__main__":
    sys.exit(main())
