"""The runs that a run starts from: what it waits for, and where their results lie; pure.

Everything is read from what the API server holds of those runs, never from storage. What cannot
work however they end (a run that makes no model, a circle) is said at once, not when they are done.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmtrain_api.layout import CHECKPOINTS, MODEL
from llmtrain_api.references import FINAL, FromRun, ModelFromRun, Parent, SourceField
from llmtrain_api.run import RunSpec
from llmtrain_api.status import ConditionType
from llmtrain_operator.diagnosis import step_of
from llmtrain_operator.reasons import Reason
from llmtrain_operator.snapshot import Lineage, Obstacle, RunKey, RunView

STAGES_WITHOUT: dict[SourceField, tuple[str, ...]] = {
    "model": ("Tokenizer", "Evaluate"),
    "tokenizer": ("Evaluate",),
}
"""The stages whose runs make no such thing."""
MAX_SHOWN = 5
"""Runs of a circle that are named."""

Runs = Mapping[RunKey, RunView]


def find_lineage(key: RunKey, spec: RunSpec, runs: Runs) -> Lineage:
    """Returns the runs that the run `key` starts from, or what is in the way of it.

    `runs` are all runs that there are.
    """
    references = spec.references
    if not references:
        return Lineage()
    circle = _circle(key, runs)
    if circle:
        return Lineage(obstacle=_refused(next(iter(references)), _words_on(circle)))
    parents = []
    for field, named in references.items():
        found = _find(field, named, key.namespace, runs)
        if isinstance(found, Obstacle):
            return Lineage(obstacle=found)
        parents.append(found)
    return Lineage(tuple(parents))


def _find(field: SourceField, named: FromRun, namespace: str, runs: Runs) -> Parent | Obstacle:
    """Returns the run that one field names, or why it cannot be started from."""
    name = named.name
    run = runs.get(RunKey(namespace, name))
    if run is None or run.deleting:
        gone = "is being deleted" if run else "does not exist (not applied yet, or deleted)"
        return Obstacle(
            Reason.RUN_NOT_FOUND,
            f"{field}.fromRun: run {name} {gone}: apply it, or name another run",
        )
    problem = _why_useless(field, named, run)
    if problem:
        return _refused(field, f"run {name} {problem}")
    finished, succeeded = (
        run.condition(type_) for type_ in (ConditionType.FINISHED, ConditionType.SUCCEEDED)
    )
    if finished.get("status") != "True":
        return Obstacle(Reason.WAITING_FOR_RUN, _words_on_waiting(field, run))
    if succeeded.get("status") != "True":
        return Obstacle(
            Reason.PREDECESSOR_FAILED,
            f"{field}.fromRun: run {name} has failed ({finished.get('reason')}): mend what it says"
            " and raise spec.retry there, or name another run",
        )
    uri = _uri(named, run)
    if uri is None:
        return _refused(field, f"run {name} {_words_on_checkpoints(run)}")
    spec_hash = (run.status.get("resolved") or {}).get("specHash")
    return Parent(field=field, name=name, uid=run.uid, uri=uri, spec_hash=spec_hash)


def _refused(field: str, problem: str) -> Obstacle:
    return Obstacle(Reason.INVALID_SPEC, f"{field}.fromRun: {problem}")


def _words_on_waiting(field: str, run: RunView) -> str:
    """Returns what is waited for, and why that itself waits where it does."""
    phase = run.status.get("phase") or "Pending"
    words = f"{field}.fromRun: waiting for run {run.key.name}, which is {phase}"
    accepted = run.condition(ConditionType.ACCEPTED)
    if accepted.get("status") == "False":
        words += f" and cannot start ({accepted.get('reason')})"
    return words + "."


def _why_useless(field: SourceField, named: FromRun, run: RunView) -> str:
    """Returns why nothing can start from a run, however it ends; empty if something can."""
    stage = run.spec.get("stage")
    if stage in STAGES_WITHOUT[field]:
        return f"is of stage {stage} and makes no {field}: name a run that trains one"
    if not _only_adapter(run, named):
        return ""
    if _step(named) is not None:
        return "trains a LoRA adapter, so its checkpoints hold no whole model: name Final"
    return (
        "writes a LoRA adapter and no whole model: apply it with output.export.mergeAdapter: true,"
        " under another name and output, and name that"
    )


def _only_adapter(run: RunView, named: FromRun) -> bool:
    if (run.spec.get("tuning") or {}).get("method") != "LoRA":
        return False
    export = (run.spec.get("output") or {}).get("export") or {}
    return _step(named) is not None or not export.get("mergeAdapter")


def _step(named: FromRun) -> int | None:
    """Returns the step whose checkpoint is named; None for the final result."""
    checkpoint = named.checkpoint if isinstance(named, ModelFromRun) else FINAL
    return checkpoint if isinstance(checkpoint, int) else None


def _uri(named: FromRun, run: RunView) -> str | None:
    """Returns the folder that is read of a run that has succeeded; None if it is not there."""
    output, step = str(run.spec["output"]["uri"]).rstrip("/"), _step(named)
    if step is None:
        # The last report, which names it, may be lost; the place is always the same.
        told = (run.status.get("artifacts") or {}).get("model")
        return str(told or f"{output}/{MODEL}/")
    name = _checkpoints(run).get(step)
    return f"{output}/{CHECKPOINTS}/{name}/" if name else None


def _checkpoints(run: RunView) -> dict[int, str]:
    """Returns the names of the checkpoints that a run has kept, as far as is known, by step."""
    names = [run.status.get("latestCheckpoint") or ""]  # By its last words, if reports were lost.
    names += [checkpoint["name"] for checkpoint in run.status.get("checkpoints") or []]
    return {step_of(name): name for name in names if name}


def _words_on_checkpoints(run: RunView) -> str:
    steps = sorted(_checkpoints(run))
    kept = f"kept those of the steps {', '.join(map(str, steps))}" if steps else "has none"
    return f"has no checkpoint of that step: it {kept}: name one of those, or Final"


def _circle(key: RunKey, runs: Runs) -> list[str]:
    """Returns the names from a run back to itself, each waiting for the next; empty if none do.

    A run that has started waits for nothing any more.
    """
    paths: list[list[RunKey]] = [[key]]
    seen: set[RunKey] = set()
    while paths:
        path = paths.pop()
        run = runs.get(path[-1])
        if run is None or (run.status.get("attempt") and run.key != key):
            continue
        for named in run.named_runs:
            if named == key:
                return [step.name for step in (*path, key)]
            if named not in seen:
                seen.add(named)
                paths.append([*path, named])
    return []


def _words_on(circle: list[str]) -> str:
    shown = circle if len(circle) <= MAX_SHOWN else [*circle[: MAX_SHOWN - 1], "...", circle[-1]]
    return (
        f"the runs {' -> '.join(shown)} wait for each other: take fromRun out of one of them, then"
        " raise spec.retry of the others"
    )
