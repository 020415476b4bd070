from __future__ import annotations

import pytest

from llmtrain_trainer.lineage import lineage, to_delete
from llmtrain_trainer.records import CheckpointManifest, Tombstone


def manifest(name: str, parent: str | None = None) -> CheckpointManifest:
    step, _, rest = name.partition("-a")
    attempt, _, restart = rest.partition("r")
    return CheckpointManifest(
        name=name,
        parent=parent,
        attempt=int(attempt),
        restart=int(restart),
        step=int(step),
        samples=0,
        seed=0,
        world_size=1,
        spec_hash="",
        created_at="",
        files=[],
    )


CORRUPT = Tombstone(kind="Corrupt", reason="", created_at="")
ROLLED_BACK = Tombstone(kind="RolledBack", reason="", created_at="")
ONE_LINE = [
    manifest("10-a1r0"),
    manifest("20-a1r0", "10-a1r0"),
    manifest("30-a1r0", "20-a1r0"),
]
FORKED = [
    manifest("10-a1r0"),
    manifest("90-a1r0", "10-a1r0"),
    manifest("20-a2r0", "10-a1r0"),
]


@pytest.mark.parametrize(
    ("manifests", "tombstones", "names"),
    [
        pytest.param([], {}, [], id="no checkpoint, no line"),
        pytest.param(ONE_LINE, {}, ["30-a1r0", "20-a1r0", "10-a1r0"], id="newest first"),
        pytest.param(
            FORKED,
            {},
            ["20-a2r0", "10-a1r0"],
            id="a larger step on an abandoned line does not count",
        ),
        pytest.param(
            ONE_LINE, {"30-a1r0": CORRUPT}, ["20-a1r0", "10-a1r0"], id="a corrupt one is left out"
        ),
        pytest.param(
            ONE_LINE,
            {"20-a1r0": CORRUPT},
            ["30-a1r0", "10-a1r0"],
            id="what was trained from a corrupt one is as good as before",
        ),
        pytest.param(
            ONE_LINE,
            {"20-a1r0": ROLLED_BACK},
            ["10-a1r0"],
            id="what was trained from a rolled-back one goes with it",
        ),
        pytest.param(
            FORKED,
            {"20-a2r0": CORRUPT, "10-a1r0": CORRUPT},
            ["90-a1r0"],
            id="with its line all corrupt, the line before is better than nothing",
        ),
        pytest.param(
            [manifest("20-a1r0", "10-a1r0")],
            {},
            ["20-a1r0"],
            id="a parent that was deleted is no loss",
        ),
        pytest.param(
            [manifest("9-a1r0"), manifest("10-a1r1", "9-a1r0")],
            {},
            ["10-a1r1", "9-a1r0"],
            id="a restart goes on from the one before",
        ),
    ],
)
def test_lineage(
    manifests: list[CheckpointManifest], tombstones: dict[str, Tombstone], names: list[str]
) -> None:
    assert [each.name for each in lineage(manifests, tombstones)] == names


@pytest.mark.parametrize(
    ("manifests", "tombstones", "keep", "doomed"),
    [
        pytest.param(ONE_LINE, {}, 2, ["10-a1r0"], id="the oldest goes"),
        pytest.param(ONE_LINE, {}, 5, [], id="nothing goes while there are few"),
        pytest.param(FORKED, {}, 2, ["90-a1r0"], id="an abandoned line goes first"),
        pytest.param(
            ONE_LINE, {"30-a1r0": CORRUPT}, 1, ["10-a1r0", "30-a1r0"], id="a corrupt one goes"
        ),
        pytest.param(
            [manifest("10-a1r0")], {"10-a1r0": CORRUPT}, 1, [], id="the last one never goes"
        ),
        pytest.param(
            [*ONE_LINE, manifest("40-a1r0", "30-a1r0").model_copy(update={"best": "10-a1r0"})],
            {},
            1,
            ["20-a1r0", "30-a1r0"],
            id="the best one stays, as the newest names it",
        ),
    ],
)
def test_what_is_deleted(
    manifests: list[CheckpointManifest],
    tombstones: dict[str, Tombstone],
    keep: int,
    doomed: list[str],
) -> None:
    assert to_delete(manifests, tombstones, keep) == doomed
