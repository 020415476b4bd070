"""A run of MLflow, by its own client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_api.tracking import MLflow
from llmtrain_trainer.tracking.identity import identity, parameters
from llmtrain_trainer.tracking.points import Point

ENVIRONMENT = {
    # The library's defaults wait for minutes; what fails is offered again from here.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_UID_TAG = "llmtrain.uid"
_STEP_TAG = "llmtrain.step"
_POINTS_AT_ONCE = 20  # The server takes 1,000 values at once; a point has a few dozen.
_PARAMETERS_AT_ONCE = 100
_ENDS = {ExitClass.SUCCESS: "FINISHED", ExitClass.PREEMPTED: "KILLED"}


class MLflowRun:
    """The run of MLflow that belongs to a run of ours, found again by a tag with its UID.

    The last step that the server took is a tag too, so that a later attempt does not repeat it.
    """

    def __init__(self, settings: MLflow, run: RunFile) -> None:
        self._settings = settings
        self._run = run
        self._client: Any = None
        self._id = ""
        self._known = -1

    def begin(self) -> None:
        """Opens the run, or goes on with it."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient  # Late: it takes seconds, and reads the above.

        self._client = MlflowClient(tracking_uri=self._settings.tracking_uri)
        experiment = self._experiment()
        uid = identity(self._run)
        found = self._client.search_runs(
            [experiment], f"tags.`{_UID_TAG}` = '{uid}'", max_results=1
        )
        if found:
            self._id = found[0].info.run_id
            self._known = int(found[0].data.tags.get(_STEP_TAG, -1))
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {_UID_TAG: uid, "llmtrain.namespace": self._run.namespace}
        self._id = self._client.create_run(
            experiment, tags=tags, run_name=self._run.name
        ).info.run_id
        self._log_parameters()

    def _experiment(self) -> str:
        name = self._settings.experiment
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def _log_parameters(self) -> None:
        from mlflow.entities import Param

        named = [Param(name, value) for name, value in parameters(self._run).items()]
        for begin in range(0, len(named), _PARAMETERS_AT_ONCE):
            some = named[begin : begin + _PARAMETERS_AT_ONCE]
            self._client.log_batch(self._id, params=some, synchronous=True)

    def log(self, points: Sequence[Point]) -> None:
        """Sends the points of steps that the server does not have from an earlier attempt."""
        from mlflow.entities import Metric, RunTag

        new = [point for point in points if point.step > self._known]
        for begin in range(0, len(new), _POINTS_AT_ONCE):
            some = new[begin : begin + _POINTS_AT_ONCE]
            metrics = [
                Metric(name, value, round(point.seconds * 1000), point.step)
                for point in some
                for name, value in point.values.items()
            ]
            step = RunTag(_STEP_TAG, str(some[-1].step))
            self._client.log_batch(self._id, metrics=metrics, tags=[step], synchronous=True)

    def end(self, exit_class: ExitClass) -> None:
        """Says how it ended; a later attempt goes on all the same."""
        self._client.set_terminated(self._id, status=_ENDS.get(exit_class, "FAILED"))
