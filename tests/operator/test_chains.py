"""Runs that start from other runs, over a fake cluster: they wait, are woken, fail, come again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chains import Chain, chained, whole
from lives import fail_attempt

from llmtrain_operator.kube import RUNS


@pytest.fixture
def chain() -> Chain:
    return Chain()


def run_file(chain: Chain, attempt: str) -> dict[str, Any]:
    """Returns the `run.json` of an attempt."""
    data = chain.kube.objects["ConfigMap", "default", attempt]["data"]
    return dict(json.loads(data["run.json"]))


async def test_a_chain_of_three_runs_one_after_the_other(chain: Chain) -> None:
    await chain.apply_runs(dpo=chained("sft"), sft=chained("pre"), pre=whole())
    assert chain.kube.names("Job") == ["pre-a1"]
    await chain.succeed("pre")
    assert chain.kube.names("Job") == ["pre-a1", "sft-a1"]
    await chain.succeed("sft")
    await chain.succeed("dpo")
    phases = [chain.kube.status(name)["phase"] for name in ("pre", "sft", "dpo")]
    assert phases == ["Succeeded"] * 3
    assert run_file(chain, "dpo-a1")["spec"]["model"] == {"uri": "s3://runs/sft/model/"}


async def test_a_run_that_waits_makes_nothing_and_says_for_what(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    await chain.settle_all(60)
    assert [name for name in chain.kube.names("ConfigMap") if name.startswith("one")] == []
    assert chain.said("one") == {
        "Accepted": "True Accepted",
        "WorkersReady": "False WaitingForRun",
        "Suspended": "False NotSuspended",
        "Reconciling": "False UpToDate",
        "Stalled": "False NotStalled",
        "Succeeded": "Unknown NotFinished",
        "Finished": "False NotFinished",
    }
    chain.focus("one")
    assert chain.phase() == "Pending"
    message = "model.fromRun: waiting for run pre, which is Starting."
    assert chain.message("WorkersReady") == message
    assert chain.status.resolved is None, "a spec that is not resolved has no hash"
    assert chain.status.attempt is None, "so it may still be corrected"


async def test_waiting_costs_no_writes(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    await chain.settle_all(60)
    writes = list(chain.kube.writes)
    for _ in range(3):
        await chain.settle_all(3600)
    assert chain.kube.writes == writes


async def test_the_end_of_a_run_wakes_those_that_wait_for_it(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"), two=chained("pre"), other=whole())
    await chain.woken()
    chain.kube.run_pods("pre-a1")
    chain.kube.end_pod(chain.kube.pods_of("pre-a1")[0], 0)
    chain.kube.end_job("pre-a1", "Complete")
    chain.focus("pre")
    await chain.reconciler.reconcile(chain.KEY)
    assert await chain.woken() >= {"one", "two"}
    await chain.woken()
    await chain.reconciler.reconcile(chain.KEY)
    assert await chain.woken() & {"one", "two"} == set(), "only once"


async def test_what_a_run_was_made_from_is_in_its_status_and_its_run_file(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    await chain.succeed("pre")
    chain.focus("one")
    resolved = chain.status.resolved
    assert resolved is not None
    assert resolved.parents is not None
    (parent,) = resolved.parents
    pre = chain.kube.objects["LLMTrainRun", "default", "pre"]
    assert parent.to_dict() == {
        "field": "model",
        "name": "pre",
        "uid": pre["metadata"]["uid"],
        "uri": "s3://runs/pre/model/",
        "specHash": pre["status"]["resolved"]["specHash"],
    }
    told = run_file(chain, "one-a1")
    assert told["parents"] == [parent.to_dict()]
    assert told["spec"]["model"] == {"uri": "s3://runs/pre/model/"}
    spec = chain.kube.objects["LLMTrainRun", "default", "one"]["spec"]
    assert spec["model"] == {"fromRun": {"name": "pre"}}, "the spec is the user's"


async def test_the_hash_is_that_of_the_folder_written_by_hand(chain: Chain) -> None:
    by_hand = {**chained("pre"), "model": {"uri": "s3://runs/pre/model/"}}
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    await chain.succeed("pre")
    first = chain.kube.status("one")["resolved"]["specHash"]
    chain.delete("one")
    await chain.apply_runs(one=by_hand)
    assert chain.kube.status("one")["resolved"]["specHash"] == first
    assert "parents" not in run_file(chain, "one-a1"), "a trainer that knows of none must take it"


async def test_a_new_attempt_keeps_what_the_first_one_started_from(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one={**chained("pre"), "workers": {"nodes": 2}})
    await chain.succeed("pre")
    before = chain.kube.status("one")["resolved"]
    chain.kube.change(RUNS, "default", "pre", {"status": {"artifacts": {"model": "s3://runs/x/"}}})
    chain.delete("pre")
    chain.kube.run_pods("one-a1")
    await chain.settle_all()
    chain.focus("one")
    await fail_attempt(chain, 1)
    await chain.settle_all(30)
    assert chain.kube.names("Job") == ["one-a1", "one-a2"]
    again = run_file(chain, "one-a2")
    assert again["spec"]["model"] == {"uri": "s3://runs/pre/model/"}
    assert again["parents"] == before["parents"]
    assert chain.kube.status("one")["resolved"]["specHash"] == before["specHash"]


async def test_a_raised_retry_keeps_it_too(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    await chain.succeed("pre")
    await chain.fail("one")
    assert chain.kube.status("one")["phase"] == "Failed"
    chain.delete("pre")
    await chain.apply_runs(pre=whole())
    chain.kube.change(RUNS, "default", "one", {"spec": {"retry": 1}})
    await chain.settle_all()
    parents = run_file(chain, "one-a2")["parents"]
    assert parents == run_file(chain, "one-a1")["parents"]


async def test_an_operator_that_died_before_it_made_the_job_resolves_the_same(
    chain: Chain,
) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))

    def die(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("create", "ConfigMap"):
            raise RuntimeError("killed")

    chain.kube.fail = die
    with pytest.raises(RuntimeError):
        await chain.succeed("pre")
    chain.kube.fail = lambda verb, kind, name: None
    chain.delete("pre")
    chain.start_operator()
    await chain.settle_all()
    assert run_file(chain, "one-a1")["spec"]["model"] == {"uri": "s3://runs/pre/model/"}


async def test_a_predecessor_that_failed_stalls_the_run_until_it_is_tried_again(
    chain: Chain,
) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"), two=chained("one"))
    await chain.fail("pre")
    said = chain.said("one")
    assert said["Accepted"] == said["WorkersReady"] == "False PredecessorFailed"
    assert said["Stalled"] == "True PredecessorFailed"
    assert said["Reconciling"] == "False UpToDate"
    assert said["Finished"] == "False NotFinished"
    chain.focus("one")
    assert "run pre has failed (InvalidConfig)" in chain.message("Stalled")
    assert "raise spec.retry there" in chain.message("Stalled")
    chain.focus("two")
    assert "run one, which is Pending and cannot start" in chain.message("WorkersReady")
    assert "WorkersNotReady" in chain.event_reasons()

    chain.kube.change(RUNS, "default", "pre", {"spec": {"retry": 1}})
    await chain.settle_all()
    assert chain.said("one")["Stalled"] == "False NotStalled"
    assert chain.said("one")["WorkersReady"] == "False WaitingForRun"
    await chain.succeed("pre", attempt=2)
    assert "one-a1" in chain.kube.names("Job")


async def test_a_failed_predecessor_is_waited_for_no_longer_than_for_a_start(
    chain: Chain,
) -> None:
    await chain.apply_runs(pre=whole(), one={**chained("pre"), "startTimeoutSeconds": 600})
    chain.kube.run_pods("pre-a1")
    await chain.settle_all(100_000)
    assert chain.said("one")["Finished"] == "False NotFinished", "one that goes on has no limit"
    await chain.fail("pre")
    await chain.settle_all(300)
    assert chain.said("one")["Finished"] == "False NotFinished"
    await chain.settle_all(300)
    assert chain.said("one")["Finished"] == "True StartTimeout"
    assert chain.said("one")["Stalled"] == "True StartTimeout"
    chain.focus("one")
    assert chain.message("Finished").startswith("Waited 600 s (startTimeoutSeconds) in vain: model")
    assert chain.message("Finished").endswith("Then raise spec.retry to try again.")

    chain.kube.change(RUNS, "default", "one", {"spec": {"retry": 1}})
    await chain.settle_all()
    assert chain.said("one")["Stalled"] == "True PredecessorFailed"
    await chain.settle_all(300)
    assert chain.said("one")["Finished"] == "False NotFinished", "its time begins anew"


async def test_a_predecessor_may_come_later(chain: Chain) -> None:
    await chain.apply_runs(one=chained("pre"))
    said = chain.said("one")
    assert said["Accepted"] == said["WorkersReady"] == "False RunNotFound"
    assert said["Stalled"] == "False NotStalled"
    assert chain.event_reasons() == [], "in one apply it is the usual course of things"
    await chain.apply_runs(pre=whole())
    assert chain.said("one")["WorkersReady"] == "False WaitingForRun"
    assert chain.said("one")["Accepted"] == "True Accepted"


async def test_a_predecessor_that_never_comes_ends_the_run_in_time(chain: Chain) -> None:
    await chain.apply_runs(one={**chained("prr"), "startTimeoutSeconds": 60})
    await chain.settle_all(90)
    assert chain.said("one")["Finished"] == "True StartTimeout"
    chain.focus("one")
    assert "run prr does not exist" in chain.message("Finished")
    chain.kube.change(RUNS, "default", "one", {"spec": {"model": {"fromRun": {"name": "pre"}}}})
    await chain.apply_runs(pre=whole())
    assert chain.said("one")["Finished"] == "False NotFinished", "it was corrected"
    assert chain.said("one")["WorkersReady"] == "False WaitingForRun"


async def test_a_predecessor_that_is_deleted_and_applied_again_is_waited_for(
    chain: Chain,
) -> None:
    await chain.apply_runs(pre=whole(), one=chained("pre"))
    chain.delete("pre")
    await chain.settle_all()
    assert chain.said("one")["WorkersReady"] == "False RunNotFound"
    chain.focus("one")
    assert "apply it, or name another run" in chain.message("WorkersReady")
    await chain.apply_runs(pre=whole())
    await chain.succeed("pre")
    pre = chain.kube.objects["LLMTrainRun", "default", "pre"]
    assert run_file(chain, "one-a1")["parents"][0]["uid"] == pre["metadata"]["uid"]


async def test_a_suspended_run_does_not_wait_and_resolves_when_it_goes_on(chain: Chain) -> None:
    await chain.apply_runs(pre=whole(), one={**chained("pre"), "suspend": True})
    assert chain.said("one")["Suspended"] == "True Suspended"
    await chain.succeed("pre")
    assert "one-a1" not in chain.kube.names("Job")
    assert chain.kube.status("one")["resolved"]["parents"][0]["name"] == "pre"
    chain.delete("pre")
    chain.kube.change(RUNS, "default", "one", {"spec": {"suspend": False}})
    await chain.settle_all()
    assert chain.said("one")["WorkersReady"] == "False RunNotFound", "nothing was promised yet"
    assert "resolved" not in chain.kube.status("one")


async def test_a_circle_ends_every_run_of_it_and_can_be_mended(chain: Chain) -> None:
    await chain.apply_runs(one=chained("two"), two=chained("one"))
    for name, circle in (("one", "one -> two -> one"), ("two", "two -> one -> two")):
        assert chain.said(name)["Accepted"] == "False InvalidSpec"
        assert chain.said(name)["Finished"] == "True InvalidSpec"
        chain.focus(name)
        assert f"the runs {circle} wait for each other" in chain.message("Finished")
    mended = {"model": {"fromRun": None, "uri": "s3://models/tiny/"}}
    chain.kube.change(RUNS, "default", "two", {"spec": mended})
    chain.kube.change(RUNS, "default", "one", {"spec": {"retry": 1}})
    await chain.settle_all()
    assert chain.kube.names("Job") == ["two-a1"]
    await chain.succeed("two")
    assert chain.kube.names("Job") == ["one-a1", "two-a1"]


async def test_a_refused_run_that_is_corrected_has_all_its_time_again(chain: Chain) -> None:
    await chain.apply_runs(one=chained("two"), two=chained("one"))
    await chain.settle_all(100_000)
    chain.kube.change(RUNS, "default", "one", {"spec": {"model": {"fromRun": {"name": "pre"}}}})
    await chain.settle_all()
    assert chain.said("one")["WorkersReady"] == "False RunNotFound"
    assert chain.said("one")["Finished"] == "False NotFinished"


async def test_an_adapter_without_its_model_is_refused_at_once(chain: Chain) -> None:
    lora = {**whole(), "tuning": {"method": "LoRA"}}
    await chain.apply_runs(sft=lora, one=chained("sft"))
    assert chain.said("one")["Finished"] == "True InvalidSpec"
    chain.focus("one")
    assert "output.export.mergeAdapter: true" in chain.message("Accepted")
