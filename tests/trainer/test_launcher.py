"""The launcher as a whole, on files, with fake training processes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from laptop import Laptop, fake_command

from llmtrain_api.exits import ExitClass
from llmtrain_trainer import launcher, node, owner, prepare, saver, stop, torchrun, watch

DIGITS = "1234567890" * 10


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.setattr(torchrun, "command", fake_command)
    for module in (watch, node):  # Two nodes in one process would take each other's children.
        monkeypatch.setattr(module, "reap", lambda own: None)
    for module in (stop, watch, saver, prepare):
        monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_PLAN", str(tmp_path / "plan.json"))
    return Laptop(tmp_path)


def test_a_run_ends_with_its_results_and_the_manifest_over_them(laptop: Laptop) -> None:
    assert laptop.launch() is ExitClass.SUCCESS
    manifest = json.loads((laptop.out / "model" / "manifest.json").read_text())
    named = {file["path"] for file in manifest["files"]}
    assert (laptop.out / "tensorboard" / "events.out.tfevents.a00001r000.00000").is_file()
    assert named == {
        "adapter/adapter_model.safetensors",
        "model/README.md",
        "plots/training_loss.png",
        "provenance.json",
        "results/all_results.json",
        "results/trainer_log.jsonl",
    }
    assert laptop.weights() == DIGITS[:30]
    assert laptop.verdict().latest_checkpoint == "30-a1r0"


def test_working_folders_do_not_pile_up(laptop: Laptop) -> None:
    def folders() -> list[str]:
        return [path.name for path in laptop.home.glob("scratch/*/node-0/work-*")]

    laptop.plan |= {"fail_at": 15, "how": 1, "save_every": 1000}
    for attempt in (1, 2):
        laptop.launch()
        assert folders() == [f"work-a{attempt}r0"]
    laptop.plan.pop("fail_at")
    assert laptop.launch() is ExitClass.SUCCESS
    assert folders() == []


def test_everything_that_was_printed_is_in_storage(laptop: Laptop) -> None:
    laptop.plan["fail_at"], laptop.plan["how"] = 15, 7
    laptop.launch()
    pieces = sorted((laptop.out / "attempts" / "1" / "logs").glob("node-0.*.log"))
    text = "".join(piece.read_text() for piece in pieces)
    assert "worker 0 says hello" in text
    assert "the end is near" in text
    assert "InternalError: training process 0 ended with exit code 7" in text


def test_a_finished_run_is_not_trained_again(laptop: Laptop) -> None:
    laptop.launch()
    laptop.plan["steps"] = 99
    assert laptop.launch() is ExitClass.SUCCESS
    assert "already trained" in laptop.verdict().message
    assert laptop.verdict().latest_checkpoint == "30-a1r0", "what other runs may start from"
    assert laptop.weights() == DIGITS[:30]
    assert not (laptop.out / "attempts" / "2").exists()


def test_a_failed_attempt_goes_on_from_its_last_checkpoint(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 25, "how": "kill"}
    assert laptop.launch() is ExitClass.INTERNAL
    assert laptop.verdict().message == "training process 0 was killed by signal 9"
    assert laptop.verdict().last_lines == ["worker 0 says hello with 2 threads", "the end is near"]
    assert laptop.checkpoints() == ["10-a1r0", "20-a1r0"]
    assert laptop.launch() is ExitClass.SUCCESS
    assert laptop.weights() == DIGITS[:30]
    assert laptop.checkpoints() == ["20-a1r0", "30-a2r0"]
    origin = json.loads((laptop.out / "provenance.json").read_text())
    assert [(each["attempt"], each["resumeFrom"]) for each in origin["attempts"]] == [
        (1, None),
        (2, "20-a1r0"),
    ]
    log = (laptop.out / "results" / "trainer_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["current_steps"] for line in log] == list(range(1, 31))


def test_a_rank_s_own_word_is_the_verdict(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 5, "how": "speak"}
    assert laptop.launch() is ExitClass.DIVERGED
    verdict = laptop.verdict()
    assert (verdict.message, verdict.step, verdict.rank) == ("the loss is NaN", 5, 0)


def test_a_flipped_bit_in_a_stored_checkpoint_is_found_and_the_one_before_used(
    laptop: Laptop,
) -> None:
    laptop.plan |= {"fail_at": 25, "how": 1}
    laptop.launch()
    damaged = laptop.out / "checkpoints" / "20-a1r0" / "state.txt"
    damaged.write_text("X" + damaged.read_text()[1:])
    laptop.plan["save_every"] = 1000  # A newer checkpoint would make the damaged one go.
    assert laptop.launch() is ExitClass.SUCCESS
    assert laptop.weights() == DIGITS[:30]
    start = json.loads((laptop.out / "attempts" / "2" / "restarts" / "0.json").read_text())
    assert start["resumeFrom"] == "10-a1r0"
    assert json.loads((damaged.parent / "tombstone.json").read_text())["kind"] == "Corrupt"


def test_processes_that_end_without_results_are_no_success(laptop: Laptop) -> None:
    laptop.plan["forget"] = True
    assert laptop.launch() is ExitClass.INTERNAL
    assert laptop.verdict().message == "the training processes ended without results"
    assert not (laptop.out / "model").exists()


def begin_another(laptop: Laptop) -> None:
    """Writes the record of a second attempt, as a launcher on another node would."""
    first = laptop.out / "attempts" / "1" / "restarts" / "0.json"
    record = json.loads(first.read_text()) | {"attempt": 2, "launcher": "another"}
    second = laptop.out / "attempts" / "2" / "restarts" / "0.json"
    second.parent.mkdir(parents=True)
    second.write_text(json.dumps(record))


def test_an_attempt_that_was_overtaken_neither_deletes_nor_finishes(laptop: Laptop) -> None:
    laptop.plan["seconds"] = 0.03
    laptop.once_training(lambda: begin_another(laptop))
    assert laptop.launch(laptop.run(checkpoint={"keep": 1})) is ExitClass.INTERNAL
    assert "a later attempt has begun" in laptop.verdict().message
    assert laptop.checkpoints() == ["10-a1r0", "20-a1r0", "30-a1r0"]
    assert not (laptop.out / "model" / "manifest.json").exists()


def test_an_attempt_that_was_overtaken_ends_itself(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.1)
    laptop.plan |= {"steps": 10_000, "save_every": 10_000, "seconds": 0.02}
    laptop.once_training(lambda: begin_another(laptop))
    assert laptop.launch() is ExitClass.PREEMPTED
    assert laptop.checkpoints() == []


def test_an_order_to_stop_saves_a_checkpoint_and_is_no_success(laptop: Laptop) -> None:
    laptop.plan |= {"steps": 1000, "save_every": 500, "seconds": 0.02}
    one = laptop.node()
    laptop.once_training(one.stop.order)
    assert launcher.launch(one) is ExitClass.PREEMPTED
    (name,) = laptop.checkpoints()
    step = int(name.split("-")[0])
    assert 1 < step < 500
    laptop.plan |= {"steps": step + 5, "seconds": 0.001}
    assert laptop.launch() is ExitClass.SUCCESS
    assert laptop.weights() == ("1234567890" * 100)[: step + 5]


def test_a_damaged_reference_is_named_before_a_process_reads_it(laptop: Laptop) -> None:
    reference, pairs = laptop.home / "reference", laptop.home / "data" / "pairs.jsonl"
    shutil.copytree(laptop.home / "model", reference)
    weights = reference / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    pairs.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}))
    run = laptop.run(
        stage="DPO",
        datasets=[{"uri": f"file://{pairs}", "format": "Preference"}],
        dpo={"referenceModel": {"uri": f"file://{reference}"}},
    )
    assert laptop.launch(run) is ExitClass.DATA
    assert f"{reference}, model.safetensors: is cut or damaged" in laptop.verdict().message


def test_processes_that_do_not_obey_are_killed_within_the_grace_time(laptop: Laptop) -> None:
    laptop.plan |= {"steps": 10_000, "save_every": 10_000, "seconds": 0.02, "deaf": True}
    one = laptop.node(laptop.run())
    one.stop.grace_seconds = 4
    times: list[float] = []

    def order() -> None:
        times.append(time.monotonic())
        one.stop.order()

    laptop.once_training(order)
    assert launcher.launch(one) is ExitClass.PREEMPTED
    assert time.monotonic() - times[0] < 4
    assert "grace time ended" in laptop.verdict().message


def test_a_second_order_to_stop_ends_at_once(laptop: Laptop) -> None:
    laptop.plan |= {"steps": 10_000, "save_every": 10_000, "seconds": 0.02, "deaf": True}
    one = laptop.node(laptop.run(workers={"terminationGracePeriodSeconds": 10}))
    times: list[float] = []

    def order_twice() -> None:
        times.append(time.monotonic())
        one.stop.order()
        one.stop.order()

    laptop.once_training(order_twice)
    assert launcher.launch(one) is ExitClass.PREEMPTED
    assert time.monotonic() - times[0] < 4


def test_an_order_to_stop_while_the_processes_load_ends_at_once(laptop: Laptop) -> None:
    laptop.plan |= {"seconds": 60}
    one = laptop.node(laptop.run(workers={"terminationGracePeriodSeconds": 60}))
    times: list[float] = []

    def order() -> None:
        while not list(laptop.home.glob("scratch/*/node-0/work-*/activity.json")):
            time.sleep(0.02)
        times.append(time.monotonic())
        one.stop.order()

    threading.Thread(target=order, daemon=True).start()
    assert launcher.launch(one) is ExitClass.PREEMPTED
    assert time.monotonic() - times[0] < 5
    assert laptop.verdict().message == "told to stop before a step was trained"


def test_an_order_to_stop_before_training_ends_at_once(laptop: Laptop) -> None:
    one = laptop.node()
    one.stop.order()
    assert launcher.launch(one) is ExitClass.PREEMPTED
    assert not (laptop.out / "model").exists()


def test_another_spec_is_refused_by_name(laptop: Laptop) -> None:
    laptop.launch()
    other = laptop.run(training={"learningRate": 1e-4}, top={"name": "second"})
    assert laptop.launch(other) is ExitClass.CONFIG
    message = laptop.verdict().message
    assert message.startswith("output.uri: ")
    assert "belongs to the run first" in message


def test_an_input_that_changed_between_attempts_is_named(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 15, "how": 1}
    laptop.launch()
    (laptop.home / "data" / "rows.jsonl").write_text('{"instruction": "x", "output": "y"}\n')
    assert laptop.launch() is ExitClass.DATA
    assert "rows.jsonl: it changed since the run began" in laptop.verdict().message


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("model/config.json", "has no config.json", id="a model without a config"),
        pytest.param("data/rows.jsonl", "there is no such object", id="a data set that is missing"),
    ],
)
def test_what_is_missing_is_named(laptop: Laptop, path: str, words: str) -> None:
    (laptop.home / path).unlink()
    assert laptop.launch() is ExitClass.DATA
    assert words in laptop.verdict().message


def test_two_nodes_train_as_one_gang(laptop: Laptop) -> None:
    run = laptop.run(workers={"nodes": 2}, top={"attempt": 1, "uid": "a"})
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda index: laptop.launch(run, index), (1, 0)))
    assert both == [ExitClass.SUCCESS, ExitClass.SUCCESS]
    manifest = json.loads((laptop.out / "checkpoints/30-a1r0/manifest.json").read_text())
    keys = {(file["node"], file["key"]) for file in manifest["files"]}
    assert keys == {(0, "rng_state_0.pth"), (0, "state.txt"), (1, "node-1/rng_state_1.pth")}


def test_a_node_waits_in_vain_for_one_that_ended(laptop: Laptop) -> None:
    run = laptop.run(workers={"nodes": 2}, top={"attempt": 1, "uid": "a"})
    (laptop.home / "data" / "rows.jsonl").write_text("not json\n")
    nodes = [laptop.node(run, 0), laptop.node(run, 1)]
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(launcher.launch, nodes))
    assert set(both) <= {ExitClass.DATA, ExitClass.PEER_LOST}
    assert ExitClass.DATA in both


def test_a_run_that_was_deleted_and_applied_again_goes_on(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 25, "how": 1}
    assert laptop.launch(laptop.run(top={"uid": "old", "attempt": 1})) is ExitClass.INTERNAL
    shutil.rmtree(laptop.home / "scratch")
    laptop.plan.pop("fail_at")
    assert laptop.launch(laptop.run(top={"uid": "new", "attempt": 1})) is ExitClass.SUCCESS
    assert laptop.weights() == DIGITS[:30]
    assert laptop.checkpoints() == ["20-a1r0", "30-a2r0"]


def test_an_attempt_that_was_started_before_is_refused(laptop: Laptop) -> None:
    laptop.plan |= {"fail_at": 25, "how": 1}
    run = laptop.run(top={"uid": "a", "attempt": 1})
    laptop.launch(run)
    assert laptop.launch(run) is ExitClass.INTERNAL
    assert "already started" in laptop.verdict().message
