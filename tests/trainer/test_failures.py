"""Exceptions become exit classes, and the launcher is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtrain_api.errors import ConfigError, DataError, StorageError
from llmtrain_api.exits import ExitClass
from llmtrain_trainer.failures import DivergedError, classify, report
from llmtrain_trainer.workdir import RankFailure


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, which is known by its name."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ConfigError("a", "b", "c"), ExitClass.CONFIG, id="a spec that cannot work"),
        pytest.param(DataError("a", "b", "c"), ExitClass.DATA, id="data that is malformed"),
        pytest.param(StorageError("a", "b", "c"), ExitClass.STORAGE, id="storage that is silent"),
        pytest.param(DivergedError("loss is nan"), ExitClass.DIVERGED, id="a run that diverged"),
        pytest.param(MemoryError(), ExitClass.OUT_OF_MEMORY, id="Python without memory"),
        pytest.param(
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            ExitClass.OUT_OF_MEMORY,
            id="a GPU without memory",
        ),
        pytest.param(
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"
            ),
            ExitClass.OUT_OF_MEMORY,
            id="a CPU without memory",
        ),
        pytest.param(
            RuntimeError(
                "cumsum_cuda_kernel does not have a deterministic implementation, but you set"
                " 'torch.use_deterministic_algorithms(True)'"
            ),
            ExitClass.CONFIG,
            id="an operation that training.deterministic forbids",
        ),
        pytest.param(
            OSError(12, "Cannot allocate memory"), ExitClass.OUT_OF_MEMORY, id="no memory to fork"
        ),
        pytest.param(
            RuntimeError(
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by"
                " peer [10.0.0.2]:41021"
            ),
            ExitClass.PEER_LOST,
            id="gloo whose peer went away",
        ),
        pytest.param(
            RuntimeError("NCCL error: ncclRemoteError: A call failed possibly due to a network"),
            ExitClass.PEER_LOST,
            id="NCCL whose peer went away",
        ),
        pytest.param(
            ConnectionResetError(104, "Connection reset by peer"),
            ExitClass.PEER_LOST,
            id="a store whose server went away",
        ),
        pytest.param(
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            ExitClass.INTERNAL,
            id="anything else",
        ),
        pytest.param(
            ValueError("connection closed by peer"),
            ExitClass.INTERNAL,
            id="a message that misleads",
        ),
    ],
)
def test_classify(error: Exception, expected: ExitClass) -> None:
    assert classify(error) is expected


def test_report_writes_what_the_launcher_reads(tmp_path: Path) -> None:
    assert report(OutOfMemoryError("no room"), tmp_path, 3, 17) is ExitClass.OUT_OF_MEMORY
    told = RankFailure.model_validate_json((tmp_path / "failure-rank-3.json").read_bytes())
    assert (told.rank, told.step, told.message) == (3, 17, "no room")
    assert told.exception.endswith(".OutOfMemoryError")
    assert told.time.endswith("Z")


def test_an_exception_without_words_is_named(tmp_path: Path) -> None:
    report(KeyError(), tmp_path, 0, None)
    told = RankFailure.model_validate_json((tmp_path / "failure-rank-0.json").read_bytes())
    assert told.message == told.exception == "KeyError"


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    report(RuntimeError("x" * 10_000), tmp_path, 0, None)
    told = RankFailure.model_validate_json((tmp_path / "failure-rank-0.json").read_bytes())
    assert len(told.message) == 2000
