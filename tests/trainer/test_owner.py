from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from laptop import Laptop

from llmtrain_api.errors import ConfigError, LLMTrainError
from llmtrain_api.layout import FINAL_MANIFEST, OWNER, restart_record
from llmtrain_api.runfile import spec_hash
from llmtrain_api.training import Storage
from llmtrain_trainer import owner
from llmtrain_trainer.records import FinalManifest, Heartbeat, Owner, Start, read_record, to_bytes
from llmtrain_trainer.storage import Folder, open_folder


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


@pytest.fixture
def output(laptop: Laptop) -> Folder:
    return open_folder(f"file://{laptop.out}", Storage(), field="output.uri", patience=0.1)


def start(attempt: int, uid: str = "", run_attempt: int | None = None, restart: int = 0) -> Start:
    return Start(
        attempt=attempt,
        restart=restart,
        run_uid=uid,
        run_attempt=run_attempt,
        launcher=f"launcher-{attempt}-{uid}",
        created_at="2026-01-01T00:00:00Z",
    )


def put(output: Folder, record: Start) -> None:
    output.write(restart_record(record.attempt, record.restart), to_bytes(record))


def test_of_many_launchers_one_claims_the_prefix_and_the_others_agree(
    laptop: Laptop, output: Folder
) -> None:
    runs = [laptop.run(top={"uid": f"uid-{number}"}) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        owners = list(pool.map(lambda run: owner.claim(output, run), runs))
    assert len({each.uid for each in owners}) == 1
    assert read_record(output, OWNER, Owner) == owners[0]


def test_of_many_launchers_with_other_specs_all_but_one_are_refused(
    laptop: Laptop, output: Folder
) -> None:
    def claim(number: int) -> str:
        run = laptop.run(training={"seed": number}, top={"name": f"run-{number}"})
        try:
            return owner.claim(output, run).name
        except ConfigError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(claim, range(8)))
    (winner,) = [answer for answer in answers if answer.startswith("run-")]
    assert all(f"belongs to the run {winner}" in answer for answer in answers if answer != winner)


@pytest.mark.parametrize(
    ("newest", "uid", "attempt", "expected"),
    [
        pytest.param(None, "", None, 1, id="the first one on a laptop"),
        pytest.param(start(1), "", None, 2, id="the second one on a laptop"),
        pytest.param(None, "a", 1, 1, id="the operator's first"),
        pytest.param(start(1, "a", 1), "a", 2, 2, id="the operator's second"),
        pytest.param(start(1, "a", 1), "a", 4, 4, id="attempts that never got so far leave a gap"),
        pytest.param(
            start(3, "a", 3), "b", 1, 4, id="a run applied anew counts on from the old one"
        ),
        pytest.param(start(4, "b", 1), "b", 2, 5, id="and goes on so"),
    ],
)
def test_the_number_of_an_attempt(
    laptop: Laptop, newest: Start | None, uid: str, attempt: int | None, expected: int
) -> None:
    run = laptop.run(top={"uid": uid, "attempt": attempt})
    assert owner.next_attempt(newest, run) == expected


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_is_fenced_by_a_later_or_equal_one(laptop: Laptop, attempt: int) -> None:
    run = laptop.run(top={"uid": "a", "attempt": attempt})
    with pytest.raises(LLMTrainError, match="already started"):
        owner.next_attempt(start(2, "a", 2), run)


def test_the_newest_start_is_found_by_number_not_by_name(output: Folder) -> None:
    assert owner.newest_start(output) is None
    for attempt in (1, 9, 10):
        put(output, start(attempt))
    put(output, start(10, restart=1))
    output.write("attempts/11/logs/node-0.00000.log", b"no record yet")
    newest = owner.newest_start(output)
    assert newest is not None
    assert (newest.attempt, newest.restart) == (10, 1)


def test_of_two_launchers_of_one_attempt_the_second_is_refused(output: Folder) -> None:
    first, second = start(1, "a"), start(1, "b")
    owner.begin(output, first)
    owner.begin(output, first)  # A request that was repeated after a lost answer.
    with pytest.raises(LLMTrainError, match="another launcher started this attempt"):
        owner.begin(output, second)


def test_an_attempt_knows_when_a_later_one_has_begun(output: Folder) -> None:
    mine = start(1, "a")
    owner.begin(output, mine)
    assert owner.still_newest(output, mine)
    owner.begin(output, start(2, "a"))
    assert not owner.still_newest(output, mine)


def test_only_results_of_the_same_spec_count_as_finished(laptop: Laptop, output: Folder) -> None:
    run = laptop.run()
    assert owner.finished(output, run) is None
    for hash_of_results, expected in (("other", False), (spec_hash(run.spec), True)):
        manifest = FinalManifest(
            name="first", spec_hash=hash_of_results, attempt=1, restart=0, created_at="", files=[]
        )
        output.write(FINAL_MANIFEST, to_bytes(manifest))
        assert (owner.finished(output, run) is not None) is expected


class TestAnotherRunsLauncher:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, "SILENCE_SECONDS", 0.3)
        monkeypatch.setattr(owner, "_POLL_SECONDS", 0.02)
        monkeypatch.setattr(owner, "_GRACE_BEYOND", 1.0)

    def beat(self, output: Folder, beat: int, *, ended: bool = False) -> None:
        heartbeat = Heartbeat(launcher="old", beat=beat, ended=ended)
        output.write(owner.alive_key(1), to_bytes(heartbeat))

    def wait(self, laptop: Laptop, output: Folder, uid: str = "new") -> list[str]:
        told: list[str] = []
        run = laptop.run(top={"uid": uid}, workers={"terminationGracePeriodSeconds": 10})
        owner.wait_until_alone(output, start(1, "old"), run, told.append)
        return told

    def test_that_never_showed_life_is_not_waited_for(self, laptop: Laptop, output: Folder) -> None:
        assert self.wait(laptop, output) == []

    def test_that_has_ended_is_not_waited_for(self, laptop: Laptop, output: Folder) -> None:
        self.beat(output, 7, ended=True)
        assert self.wait(laptop, output) == []

    def test_of_the_same_run_is_not_waited_for(self, laptop: Laptop, output: Folder) -> None:
        self.beat(output, 7)
        assert self.wait(laptop, output, uid="old") == []

    def test_that_has_fallen_silent_is_given_up(self, laptop: Laptop, output: Folder) -> None:
        self.beat(output, 7)
        assert "still write to the prefix" in self.wait(laptop, output)[0]

    def test_that_is_ending_is_waited_for(self, laptop: Laptop, output: Folder) -> None:
        self.beat(output, 7)
        threading.Timer(0.1, lambda: self.beat(output, 8, ended=True)).start()
        assert self.wait(laptop, output)

    def test_that_lives_on_is_a_reason_to_refuse(
        self, laptop: Laptop, output: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(owner, "_GRACE_BEYOND", -9.8)
        stop = threading.Event()

        def live() -> None:
            beat = 0
            while not stop.wait(0.05):
                beat += 1
                self.beat(output, beat)

        self.beat(output, 0)
        threading.Thread(target=live, daemon=True).start()
        with pytest.raises(ConfigError, match="is being written by attempt 1 of another run"):
            self.wait(laptop, output)
        stop.set()
