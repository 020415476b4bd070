"""MLflow's own client against a server of its REST calls."""

from __future__ import annotations

from collections.abc import Iterator

import jobs
import pytest
import tracks
from tracks import MLflowServer

from llmtrain_api.exits import ExitClass
from llmtrain_api.runfile import RunFile
from llmtrain_api.tracking import MLflow
from llmtrain_trainer.tracking.mlflow_run import MLflowRun
from llmtrain_trainer.tracking.points import Point

pytestmark = pytest.mark.torch  # The library takes seconds to import, too.

RUN = RunFile.model_validate(
    {"name": "small", "namespace": "team", "uid": "uid-1", "spec": jobs.small_spec()}
)


@pytest.fixture
def server() -> Iterator[MLflowServer]:
    with tracks.mlflow_server() as server:
        yield server


def tracker(server: MLflowServer) -> MLflowRun:
    settings = MLflow(tracking_uri=server.url, experiment="tests")
    return MLflowRun(settings, RUN)


def points(*steps: int) -> list[Point]:
    return [
        Point(step, {"train/loss": 1 / step, "train/learning_rate": 0.1}, 5.0) for step in steps
    ]


def test_a_run_has_its_curves_its_parameters_and_its_end(server: MLflowServer) -> None:
    run = tracker(server)
    run.begin()
    run.log(points(1, 2))
    run.log([*points(3), Point(3, {"eval/loss": 0.5}, 6.0)])
    run.end(ExitClass.SUCCESS)
    (kept,) = server.runs.values()
    assert (kept["info"]["run_name"], kept["info"]["status"]) == ("small", "FINISHED")
    assert server.curve("train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert server.curve("eval/loss") == [(3, 0.5)]
    parameters = {each["key"]: each["value"] for each in kept["data"]["params"]}
    assert parameters["training.learningRate"] == "0.005"


def test_the_next_attempt_goes_on_with_the_run_and_repeats_no_step(server: MLflowServer) -> None:
    first = tracker(server)
    first.begin()
    first.log(points(*range(1, 31)))  # More than go out at once.
    first.end(ExitClass.INTERNAL)
    assert [run["info"]["status"] for run in server.runs.values()] == ["FAILED"]
    second = tracker(server)
    second.begin()
    assert [run["info"]["status"] for run in server.runs.values()] == ["RUNNING"]
    second.log(points(*range(21, 41)))  # From the checkpoint of step 20.
    assert [step for step, _ in server.curve("train/loss")] == list(range(1, 41))
    assert len(server.runs) == 1
    assert list(server.experiments) == ["tests"]


def test_a_server_that_refuses_is_an_error_to_try_again(server: MLflowServer) -> None:
    server.refuses = 403
    run = tracker(server)
    with pytest.raises(Exception, match="not you"):
        run.begin()
    server.refuses = 0
    run.begin()
    run.log(points(1))
    assert server.curve("train/loss") == [(1, 1.0)]


def test_the_server_is_shown_the_token(
    server: MLflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    tracker(server).begin()
    assert server.authorizations == {"Bearer t0ken"}
