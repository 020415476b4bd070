"""The rules about `stage: Custom`, whose command llmtrain knows nothing of, in CEL and Python."""

from __future__ import annotations

from llmtrain_api.markers import Rule
from llmtrain_api.stagerules import not_for

CUSTOM_RULES = (
    Rule(
        "self.stage != 'Custom' || has(self.custom)",
        lambda spec: spec.stage != "Custom" or spec.custom is not None,
        "set it, to say what runs: custom: {command: [python3, train.py]}",
        at="custom",
        reason="FieldValueRequired",
    ),
    *(
        not_for(
            "Custom",
            block,
            "stage Custom leaves it to the command: remove it, and say it in custom.args",
        )
        for block in ("tuning", "training", "evaluation")
    ),
    Rule(
        "(has(self.datasets) && size(self.datasets) > 0) || self.stage == 'Custom'",
        lambda spec: len(spec.datasets) > 0 or spec.stage == "Custom",
        "name at least one data set",
        at="datasets",
    ),
    Rule(
        "!has(self.custom) || self.custom.launcher == 'Torchrun'"
        " || self.workers.processesPerNode <= 1",
        lambda spec: (
            spec.custom is None
            or spec.custom.launcher == "Torchrun"
            or spec.workers.processes_per_node == 1
        ),
        "custom.launcher None starts the command once on each node: use 1, and let the command"
        " start more processes itself",
        at="workers.processesPerNode",
    ),
)
"""The rules about a run with a command of its own."""
