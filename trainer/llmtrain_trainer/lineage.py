"""Which checkpoint to go on from, and which to delete: pure decisions over manifests.

Checkpoints form chains by their parent links. The line that counts is the one that ends in the
newest checkpoint of the newest (attempt, restart); a larger step on an abandoned line does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmtrain_trainer.records import CheckpointManifest, Tombstone


def lineage(
    manifests: Sequence[CheckpointManifest], tombstones: Mapping[str, Tombstone]
) -> list[CheckpointManifest]:
    """Returns the checkpoints to go on from, best first.

    Args:
        manifests: All checkpoints that are whole in storage.
        tombstones: By name, those that must not be used.

    Returns:
        The newest usable checkpoint and its ancestors. One whose bytes are corrupt is left out; one
        that was rolled back is left out with all that was trained from it.
    """
    by_name = {each.name: each for each in manifests}
    heads = sorted(
        manifests, key=lambda each: (each.attempt, each.restart, each.step), reverse=True
    )
    for head in heads:
        line = _line_of(head, by_name)
        for position in reversed(range(len(line))):
            tombstone = tombstones.get(line[position].name)
            if tombstone and tombstone.kind == "RolledBack":
                line = line[position + 1 :]
                break
        usable = [each for each in line if each.name not in tombstones]
        if usable:
            return usable
    return []


def _line_of(
    head: CheckpointManifest, by_name: Mapping[str, CheckpointManifest]
) -> list[CheckpointManifest]:
    """Returns `head` and its ancestors, up to the first that storage no longer has."""
    line: list[CheckpointManifest] = []
    current: CheckpointManifest | None = head
    while current is not None and current not in line:
        line.append(current)
        current = by_name.get(current.parent) if current.parent else None
    return line


def to_delete(
    manifests: Sequence[CheckpointManifest], tombstones: Mapping[str, Tombstone], keep: int
) -> list[str]:
    """Returns the names of the checkpoints to delete, so that the `keep` newest ones stay.

    So does the one with the best model, as the newest of them names it. Nothing is deleted while no
    checkpoint is usable.
    """
    kept = lineage(manifests, tombstones)[:keep]
    if not kept:
        return []
    names = {each.name for each in kept} | {kept[0].best}
    return sorted({each.name for each in manifests} - names)
