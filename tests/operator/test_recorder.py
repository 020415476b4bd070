"""Events about runs: few, counted up, and never in the way."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from cluster_fake import FakeKube
from views import run

from llmtrain_operator.cache import Cache
from llmtrain_operator.changes import Told
from llmtrain_operator.kube import ForbiddenError, Kube, NamespaceEndsError
from llmtrain_operator.reasons import EventReason
from llmtrain_operator.recorder import MAX_WAITING, Recorder, event_name

TOLD = Told(EventReason.CHECKPOINT_SAVED, "Checkpoint 10-a1r0 is saved.", about="a1")
RUN = run()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(Cache())


@pytest.fixture
def recorder(kube: FakeKube) -> Recorder:
    return Recorder(cast("Kube", kube), lambda: kube.now)


async def test_an_event_is_about_the_run(kube: FakeKube, recorder: Recorder) -> None:
    await recorder.write(RUN, TOLD)
    event = kube.objects["Event", "default", event_name(RUN, TOLD)]
    assert event["involvedObject"]["uid"] == RUN.uid
    assert (event["type"], event["count"]) == ("Normal", 1)
    assert event["firstTimestamp"] == "2027-01-15T08:00:00Z"


async def test_the_same_again_is_counted_up_now_and_then(
    kube: FakeKube, recorder: Recorder
) -> None:
    for _ in range(10):
        await recorder.write(RUN, TOLD)
        kube.now += 3
    assert len(kube.writes) == 2
    event = kube.objects["Event", "default", event_name(RUN, TOLD)]
    assert event["count"] == 2
    assert event["lastTimestamp"] == "2027-01-15T08:00:21Z"


async def test_an_event_of_an_earlier_process_is_counted_up(
    kube: FakeKube, recorder: Recorder
) -> None:
    await recorder.write(RUN, TOLD)
    another = Recorder(cast("Kube", kube), lambda: kube.now)
    await another.write(RUN, TOLD)
    assert kube.objects["Event", "default", event_name(RUN, TOLD)]["count"] == 2


async def test_an_event_that_has_expired_is_written_anew(
    kube: FakeKube, recorder: Recorder
) -> None:
    await recorder.write(RUN, TOLD)
    kube.objects.clear()
    kube.now += 4000
    await recorder.write(RUN, TOLD)
    assert kube.objects["Event", "default", event_name(RUN, TOLD)]["count"] == 1
    kube.now += 60
    await recorder.write(RUN, TOLD)
    assert kube.objects["Event", "default", event_name(RUN, TOLD)]["count"] == 2


async def test_an_event_that_cannot_be_written_is_dropped(
    kube: FakeKube, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        raise ForbiddenError("the namespace is being terminated")

    kube.fail = refuse
    await recorder.write(RUN, TOLD)
    assert "the namespace is being terminated" in caplog.text
    assert kube.writes == []


async def test_an_event_in_a_namespace_that_ends_is_dropped_without_a_word(
    kube: FakeKube, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(verb: str, kind: str, name: str) -> None:
        raise NamespaceEndsError("the namespace is being terminated")

    kube.fail = refuse
    await recorder.write(RUN, TOLD)
    assert not caplog.text
    assert kube.writes == []


async def test_different_subjects_are_different_events(kube: FakeKube, recorder: Recorder) -> None:
    await recorder.write(RUN, TOLD)
    await recorder.write(RUN, Told(TOLD.reason, TOLD.message, about="a2"))
    await recorder.write(run(uid="another"), TOLD)
    assert len(kube.names("Event")) == 3


async def test_long_messages_are_cut(kube: FakeKube, recorder: Recorder) -> None:
    await recorder.write(RUN, Told(TOLD.reason, "x" * 5000))
    event = kube.objects["Event", "default", kube.names("Event")[0]]
    assert len(event["message"]) == 1024


async def test_events_wait_their_turn_up_to_a_bound(
    kube: FakeKube, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MAX_WAITING + 1):
        recorder.add(RUN, Told(TOLD.reason, "x", about=str(number)))
    assert "too many wait" in caplog.text
    writing = asyncio.create_task(recorder.work())
    await asyncio.sleep(0)
    assert kube.names("Event")
    writing.cancel()
