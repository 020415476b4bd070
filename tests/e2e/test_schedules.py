"""Schedules on the cluster: what is refused, and runs made by the clock."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cluster
import pytest
import specs
import yaml
from schedule_mistakes import BAD_NAMES, MISTAKES, good_schedule

from llmtrain_api.schedule import ScheduleSpec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "e2e" / "golden" / "schedules_refused_at_apply.txt"
CRD = yaml.safe_load((ROOT / "crds" / "llmtrainschedules.yaml").read_text(encoding="utf-8"))
NOWHERE = {"workers": {"nodeSelector": {"llmtrain.dev/there-is": "none"}}}


def manifest(name: str, spec: specs.Spec, namespace: str = "") -> dict[str, Any]:
    """Returns the manifest of a schedule."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "llmtrain.dev/v1alpha1",
        "kind": "LLMTrainSchedule",
        "metadata": metadata,
        "spec": spec,
    }


def each_minute(namespace: str, changes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Returns the schedule `tick`, which makes a tiny run each minute."""
    run = cluster.run_manifest(namespace, "tick", changes)["spec"]
    run["output"]["uri"] = f"s3://runs/{namespace}/{{timestamp}}/"
    return manifest(
        "tick", {"schedule": "* * * * *", "runTemplate": {"spec": run}, **fields}, namespace
    )


def status(namespace: str) -> dict[str, Any]:
    """Returns the status of the schedule `tick`; {} before there is one."""
    return dict(cluster.get("llmtrainschedule", namespace, "tick").get("status") or {})


def runs(namespace: str) -> list[str]:
    """Returns the names of the runs of the schedule `tick`."""
    found = cluster.list_of("llmtrainruns", namespace, "llmtrain.dev/schedule=tick")
    return sorted(run["metadata"]["name"] for run in found)


def patch(namespace: str, spec: dict[str, Any]) -> None:
    """Changes the schedule `tick`."""
    body = json.dumps({"spec": spec})
    cluster.kubectl("patch", "lts", "tick", "-n", namespace, "--type=merge", "-p", body)


def test_each_mistake_is_refused_with_its_message(namespace: str) -> None:
    told = {}
    for case in (*MISTAKES, *BAD_NAMES):
        text = json.dumps(manifest(case.name, case.spec()))
        arguments = ("apply", "-n", namespace, "-f", "-")
        told[case.id] = cluster.kubectl(*arguments, stdin=text, check=False).stderr.strip()
    assert [mistake for mistake, message in told.items() if not message] == []
    assert cluster.list_of("llmtrainschedules", namespace) == []
    text = "".join(f"## {mistake}\n{message}\n\n" for mistake, message in told.items())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", specs.STAGES)
def test_defaults_are_the_models(namespace: str, stage: str) -> None:
    created = cluster.kubectl(
        "create", "-n", namespace, "-f", "-", "-o", "json", "--dry-run=server",
        stdin=json.dumps(manifest("new", good_schedule(stage))),
    )  # fmt: skip
    stored = json.loads(created.stdout)
    assert ScheduleSpec.model_validate(stored["spec"]) == ScheduleSpec.model_validate(
        good_schedule(stage)
    )
    assert stored["status"] == {"observedGeneration": -1}


def test_the_stored_crd_is_the_file(kubectl: object) -> None:
    """A difference would look like drift to Argo CD and Flux for ever."""
    name = "llmtrainschedules.llmtrain.dev"
    stored = json.loads(cluster.kubectl("get", "crd", name, "-o", "json").stdout)["spec"]
    assert stored.pop("conversion") == {"strategy": "None"}
    assert stored == CRD["spec"]


def test_an_unknown_time_zone_is_told_at_once(namespace: str) -> None:
    cluster.apply(each_minute(namespace, NOWHERE, timeZone="Mars/Olympus"))
    cluster.wait_until(
        lambda: cluster.condition(status(namespace), "Stalled").get("status") == "True", "a word"
    )
    message = cluster.condition(status(namespace), "Ready")["message"]
    assert "there is no time zone 'Mars/Olympus'" in message
    patch(namespace, {"timeZone": "Asia/Kathmandu"})
    cluster.kubectl("wait", "--for=condition=Ready", "lts/tick", "-n", namespace, "--timeout=30s")


@pytest.mark.disruptive
def test_it_goes_off_each_minute_forbids_overlap_and_survives_the_operators_death(
    namespace: str,
) -> None:
    cluster.apply(each_minute(namespace, NOWHERE))
    cluster.kubectl("wait", "--for=condition=Ready", "lts/tick", "-n", namespace, "--timeout=30s")
    cluster.wait_until(lambda: runs(namespace), "the first run", seconds=75)
    (first,) = runs(namespace)
    assert re.fullmatch(r"tick-\d{8}", first)
    made = cluster.get("llmtrainrun", namespace, first)["metadata"]
    due = int(first.removeprefix("tick-")) * 60
    assert made["annotations"]["llmtrain.dev/scheduled-time"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(due)
    )
    cluster.kubectl(
        "delete", "pod", "-n", "llmtrain-system", "-l", "app.kubernetes.io/name=llmtrain",
        "--force", "--grace-period=0",
    )  # fmt: skip
    cluster.wait_until(lambda: status(namespace).get("skipped"), "a time that waits", seconds=120)
    assert status(namespace)["skipped"][0]["reason"] == "RunActive"
    assert runs(namespace) == [first]
    assert status(namespace)["activeRuns"] == 1

    cluster.kubectl("delete", "ltr", first, "-n", namespace)
    cluster.wait_until(lambda: runs(namespace), "the time that waited is made up for", seconds=60)
    (second,) = runs(namespace)
    assert second > first
    events = cluster.kubectl("get", "events", "-n", namespace, "-o", "json").stdout
    reasons = {
        event["reason"]
        for event in json.loads(events)["items"]
        if event["involvedObject"]["kind"] == "LLMTrainSchedule"
    }
    assert reasons == {"RunCreated", "TimeSkipped"}


def test_a_suspended_schedule_makes_no_runs_and_its_runs_go_with_it(namespace: str) -> None:
    cluster.apply(each_minute(namespace, NOWHERE, concurrencyPolicy="Allow"))
    cluster.wait_until(lambda: runs(namespace), "the first run", seconds=75)
    patch(namespace, {"suspend": True})
    cluster.wait_until(
        lambda: cluster.condition(status(namespace), "Ready").get("reason") == "Suspended", "a word"
    )
    before = runs(namespace)
    time.sleep(65)
    assert runs(namespace) == before
    assert "nextScheduleTime" not in status(namespace)
    patch(namespace, {"suspend": False})
    cluster.wait_until(lambda: len(runs(namespace)) > len(before), "the next run", seconds=75)
    cluster.kubectl("delete", "lts", "tick", "-n", namespace)
    cluster.wait_until(lambda: not runs(namespace), "its runs are gone", seconds=60)


@pytest.mark.usefixtures("tiny_inputs")
def test_runs_by_the_clock_and_by_hand_train_and_old_ones_go(namespace: str) -> None:
    changes = {"training": {"maxSteps": 2}}
    cluster.apply(each_minute(namespace, changes, successfulRunsHistoryLimit=1))
    cluster.wait_until(lambda: runs(namespace), "a run", seconds=75)
    (first,) = runs(namespace)
    patch(namespace, {"suspend": True})
    assert cluster.wait_finished(namespace, first)["phase"] == "Succeeded"
    cluster.wait_until(lambda: status(namespace).get("lastSuccessfulTime"), "its success")
    command = [sys.executable, "-m", "llmtrain_operator.trigger", "tick", "-n", namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manual = done.stdout.split()[0].rpartition("/")[2]
    assert cluster.wait_finished(namespace, manual)["phase"] == "Succeeded"
    cluster.wait_until(lambda: runs(namespace) == [manual], "the older run goes", seconds=60)
    places = {key.split("/")[1] for key in cluster.keys_of("runs", f"{namespace}/")}
    assert len(places) == 2, "what both wrote is still there"


def test_columns_as_kubectl_shows_them(namespace: str) -> None:
    cluster.apply(each_minute(namespace, NOWHERE, schedule="0 2 * * 0", timeZone="Europe/Berlin"))
    cluster.kubectl("wait", "--for=condition=Ready", "lts/tick", "-n", namespace, "--timeout=30s")
    head, line = cluster.kubectl("get", "lts", "-n", namespace).stdout.splitlines()
    assert head.split() == [
        "NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE",
    ]  # fmt: skip
    assert re.match(r"tick +0 2 \* \* 0 +Europe/Berlin +false +0 +20\d\d-", line)
