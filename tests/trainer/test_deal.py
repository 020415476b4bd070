"""Each row once an epoch, in one order: for any number of processes and size of micro-batch."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("rows", "micro", "processes", "shares"),
    [
        pytest.param(8, 2, 2, [[2, 2], [2, 2]], id="whole rounds"),
        pytest.param(7, 2, 2, [[2, 2], [2, 1]], id="the last process gets what is left"),
        pytest.param(5, 2, 2, [[2, 2], [1, 0]], id="nothing is left for the last process"),
        pytest.param(3, 4, 4, [[3, 0, 0, 0]], id="fewer rows than one process takes"),
        pytest.param(5, 2, 1, [[2], [2], [1]], id="one process"),
    ],
)
def test_shares(rows: int, micro: int, processes: int, shares: list[list[int]]) -> None:
    from llmtrain_trainer.stages.deal import Deal

    deal = Deal(rows, micro, processes)
    assert [deal.shares(number) for number in range(deal.rounds)] == shares
    assert deal.rows_of(0, deal.rounds) == rows
    assert [deal.rows_of(number, 1) for number in range(deal.rounds)] == [sum(x) for x in shares]


def test_the_position_is_kept_in_rows() -> None:
    from llmtrain_trainer.stages.deal import Deal

    deal = Deal(21, 2, 2)  # With 2 rounds a step: 8, 8 and 5 rows an epoch.
    assert [deal.rows_done(steps, 2) for steps in range(6)] == [0, 8, 16, 21, 29, 37]


def dealt(rows: int, micro: int, processes: int, sampler: Any = None) -> list[list[list[int]]]:
    """Returns the batches of each process, as accelerate deals ours."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import SequentialSampler

    from llmtrain_trainer.stages.deal import Deal, MicroBatches

    order: Any = sampler or SequentialSampler(range(rows))
    batches: Any = MicroBatches(order, Deal(rows, micro, processes))
    if processes == 1:
        return [list(batches)]
    return [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]


@pytest.mark.parametrize("rows", [1, 5, 8, 17, 24])
@pytest.mark.parametrize(("micro", "processes"), [(1, 8), (2, 2), (4, 2), (2, 4), (8, 1)])
def test_each_step_has_the_rows_that_one_process_would_give_it(
    rows: int, micro: int, processes: int
) -> None:
    parts = dealt(rows, micro, processes)
    assert len({len(part) for part in parts}) == 1, "all processes take part in each round"
    rounds_of_a_step = 8 // (micro * processes)
    steps: dict[int, list[int]] = {}
    for part in parts:
        for number, batch in enumerate(part):
            steps.setdefault(number // rounds_of_a_step, []).extend(batch)
    expected = [list(range(first, min(first + 8, rows))) for first in range(0, rows, 8)]
    assert [sorted(step) for step in steps.values()] == expected


def test_whole_rounds_are_dealt_as_by_accelerate() -> None:
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    plain = [
        list(
            BatchSamplerShard(
                BatchSampler(SequentialSampler(range(24)), 2, drop_last=False), 3, rank
            )
        )
        for rank in range(3)
    ]
    assert dealt(24, 2, 3) == plain


def groups(seed: int, epoch: int) -> list[int]:
    from llmtrain_trainer.stages.deal import LengthGroups

    sampler = LengthGroups([number * 7 % 50 for number in range(400)], 4, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_rows_of_about_one_length_meet_in_a_batch_whoever_trains_them() -> None:
    order = groups(3, 0)
    assert sorted(order) == list(range(400))
    assert groups(3, 0) == order
    assert groups(3, 1) != order != groups(4, 0)
    lengths = [number * 7 % 50 for number in order]
    spread = [max(lengths[i : i + 4]) - min(lengths[i : i + 4]) for i in range(4, 400, 4)]
    assert sum(spread) / len(spread) < 5


def test_the_length_of_a_row_is_that_of_all_its_tokens() -> None:
    import datasets

    from llmtrain_trainer.stages.deal import lengths

    rows = datasets.Dataset.from_dict(
        {"prompt_ids": [[1], [1, 2], [3]], "chosen_ids": [[1], [], [1]], "label": [True] * 3}
    )
    assert lengths(rows) == [2, 2, 2]
    assert lengths(rows.select([1, 1])) == [2, 2]


def test_a_batch_of_no_rows_trains_no_token() -> None:
    import torch

    from llmtrain_trainer.stages.deal import Filled

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "labels": ids.clone()}

    filled = Filled(collate, {"input_ids": [5, 6]})
    assert filled([])["labels"].tolist() == [[-100, -100]]
    assert filled([])["input_ids"].tolist() == [[5, 6]]
    assert filled([{"input_ids": [7, 8]}])["labels"].tolist() == [[7, 8]]


class Processes:
    """Stands in for an accelerator: every process has the tensor of this one."""

    def __init__(self, count: int) -> None:
        self._count = count

    def gather(self, tensor: Any) -> Any:
        import torch

        return torch.cat([tensor.reshape(1) if tensor.dim() == 0 else tensor] * self._count)

    gather_for_metrics = gather


def test_what_fills_a_batch_is_not_gathered() -> None:
    import torch

    from llmtrain_trainer.stages.once import gathering

    accelerator: Any = Processes(3)
    with gathering(accelerator, [2, 1, 0], own=2):
        assert accelerator.gather(torch.tensor([4.0, 5.0])).tolist() == [4, 5, 4]
        pairs = torch.tensor([[1.0], [2.0], [3.0], [4.0]])  # A row has two of them.
        assert accelerator.gather_for_metrics(pairs).flatten().tolist() == [1, 2, 3, 4, 1, 2]
        assert accelerator.gather(torch.tensor(7.0)).tolist() == [7, 7]
    with gathering(accelerator, [1, 1, 1], own=1):
        assert accelerator.gather(torch.tensor([4.0])).tolist() == [4, 4, 4]
    assert accelerator.gather(torch.tensor([4.0])).tolist() == [4, 4, 4]
