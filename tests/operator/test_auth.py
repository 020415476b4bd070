"""From a bearer token to the run of its pod."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tokens import FakePods, FakeReview, make_token

from llmtrain_operator.auth import (
    MAX_REVIEWS_AT_ONCE,
    REMEMBER_REFUSED_SECONDS,
    REMEMBER_SECONDS,
    Authenticator,
    Bounded,
    RefusedError,
)
from llmtrain_operator.kube import UnavailableError

START = 1_000_000.0
LATER = START + 86_400


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


async def refusal(authenticator: Authenticator, header: str) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        await authenticator.caller(header)
    return caught.value.status, str(caught.value)


async def test_a_pod_of_a_run_is_taken_for_its_run() -> None:
    caller = await Authenticator(FakeReview(), FakePods()).caller(f"Bearer {make_token()}")
    assert (caller.namespace, caller.name, caller.uid, caller.attempt) == (
        "team", "sft", "uid-of-sft", 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "status", "message"),
    [
        pytest.param("", 401, "no bearer token", id="nothing sent"),
        pytest.param("Basic dTpw", 401, "no bearer token", id="another scheme"),
        pytest.param("Bearer x", 401, "not one that a kubelet", id="not a token"),
        pytest.param("Bearer a.bm90IGpzb24.c", 401, "not one that a kubelet", id="claims not JSON"),
        pytest.param("Bearer a.W10.c", 401, "not one that a kubelet", id="claims not an object"),
        pytest.param(
            f"Bearer {make_token(audience=5)}", 401, "not one that", id="an audience of 5"
        ),
        pytest.param(
            f"Bearer {make_token(expires=float('nan'))}", 401, "has expired", id="ends at no time"
        ),
        pytest.param("Bearer " + "a" * 10_000, 401, "not one of a pod", id="a token of 10 kB"),
        pytest.param("Bearer \N{LATIN SMALL LETTER E WITH ACUTE}", 401, "not one", id="not ASCII"),
        pytest.param(
            f"Bearer {make_token(audience='https://kubernetes.default.svc', expires=LATER)}",
            401, "for another audience", id="the pod's token for the API server",
        ),
        pytest.param(
            f"Bearer {make_token(expires=START - 1)}", 401, "has expired", id="an expired token"
        ),
    ],
)  # fmt: skip
async def test_refused_without_asking_the_api_server(
    header: str, status: int, message: str
) -> None:
    review = FakeReview()
    got, text = await refusal(Authenticator(review, FakePods(), Clock()), header)
    assert (got, message in text, review.asked) == (status, True, 0), text


@pytest.mark.parametrize(
    ("token", "message"),
    [
        pytest.param(
            make_token(namespace="other", expires=LATER), "pod other/sft-a1-0 belongs to no",
            id="a pod of the same name in another namespace",
        ),
        pytest.param(
            make_token("notebook", uid="other", expires=LATER), "pod team/notebook belongs to no",
            id="another pod of the namespace",
        ),
        pytest.param(
            make_token(uid="an-earlier-uid", expires=LATER), "belongs to no LLMTrainRun",
            id="an earlier pod of the same name",
        ),
    ],
)  # fmt: skip
async def test_a_pod_of_no_run_is_refused(token: str, message: str) -> None:
    got, text = await refusal(Authenticator(FakeReview(), FakePods(), Clock()), f"Bearer {token}")
    assert (got, message in text) == (403, True), text


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        pytest.param({"authenticated": False}, 401, "not valid any more", id="not authenticated"),
        pytest.param({"audiences": []}, 401, "another audience", id="no audience confirmed"),
        pytest.param({"audiences": None}, 401, "another audience", id="audiences left out"),
        pytest.param({"audiences": ["api"]}, 401, "another audience", id="another audience"),
        pytest.param({"user": {}}, 403, "not bound to a pod", id="no user"),
        pytest.param(
            {"user": {"username": "system:serviceaccount:team:default"}}, 403, "not bound to a pod",
            id="an account's token without a pod",
        ),
        pytest.param(
            {"user": {"username": "eve", "extra": {}}}, 403, "not bound to a pod", id="a person"
        ),
    ],
)  # fmt: skip
async def test_the_word_of_the_api_server_decides(
    changes: dict[str, Any], status: int, message: str
) -> None:
    authenticator = Authenticator(FakeReview(**changes), FakePods())
    got, text = await refusal(authenticator, f"Bearer {make_token()}")
    assert (got, message in text) == (status, True), text


async def test_a_token_is_reviewed_once_in_five_minutes() -> None:
    review, clock = FakeReview(), Clock()
    authenticator = Authenticator(review, FakePods(), clock)
    header = f"Bearer {make_token(expires=LATER)}"
    for _ in range(3):
        await authenticator.caller(header)
    assert review.asked == 1
    clock.now += REMEMBER_SECONDS
    await authenticator.caller(header)
    assert review.asked == 2


async def test_a_remembered_token_ends_with_its_own_time() -> None:
    clock = Clock()
    authenticator = Authenticator(FakeReview(), FakePods(), clock)
    header = f"Bearer {make_token(expires=START + 10)}"
    await authenticator.caller(header)
    clock.now += 10
    assert (await refusal(authenticator, header))[0] == 401


async def test_a_refusal_is_remembered_for_half_a_minute() -> None:
    review, clock = FakeReview(authenticated=False), Clock()
    authenticator = Authenticator(review, FakePods(), clock)
    header = f"Bearer {make_token(expires=LATER)}"
    for _ in range(200):
        await refusal(authenticator, header)
    assert review.asked == 1
    clock.now += REMEMBER_REFUSED_SECONDS
    await refusal(authenticator, header)
    assert review.asked == 2


async def test_a_remembered_token_is_refused_once_its_pod_is_of_no_run() -> None:
    class Changing(FakePods):
        gone = False

        def run_of_pod(self, namespace: str, pod_name: str, pod_uid: str) -> Any:
            return None if self.gone else super().run_of_pod(namespace, pod_name, pod_uid)

    pods = Changing()
    authenticator = Authenticator(FakeReview(), pods)
    header = f"Bearer {make_token()}"
    await authenticator.caller(header)
    pods.gone = True
    assert (await refusal(authenticator, header))[0] == 403


async def test_an_api_server_that_does_not_answer_is_not_remembered() -> None:
    down = True
    answer = FakeReview()

    async def review(body: dict[str, Any]) -> dict[str, Any]:
        if down:
            raise UnavailableError("no answer")
        return await answer(body)

    authenticator = Authenticator(review, FakePods())
    header = f"Bearer {make_token()}"
    assert await refusal(authenticator, header) == (
        503,
        "the token could not be reviewed: no answer",
    )
    down = False
    assert (await authenticator.caller(header)).name == "sft"


async def test_few_reviews_are_asked_at_once() -> None:
    busy, most = 0, 0
    answer = FakeReview()

    async def slow(body: dict[str, Any]) -> dict[str, Any]:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.001)
        busy -= 1
        return await answer(body)

    authenticator = Authenticator(slow, FakePods())
    tokens = [make_token(f"pod-{i}") for i in range(100)]
    await asyncio.gather(*(refusal(authenticator, f"Bearer {token}") for token in tokens))
    assert (most, answer.asked) == (MAX_REVIEWS_AT_ONCE, 100)


def test_a_bounded_store_drops_the_oldest() -> None:
    store: Bounded[int] = Bounded(2, Clock())
    for number in range(4):
        store.put(str(number), number, until=LATER)
    assert [store.get(str(number)) for number in range(4)] == [None, None, 2, 3]
