"""A real API server's word on real tokens, as the progress endpoint hears it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import cluster
import pytest

from llmtrain_api.layout import TOKEN_AUDIENCE
from llmtrain_operator.auth import Authenticator, Caller, RefusedError
from llmtrain_operator.kube import TOKEN_REVIEWS, Kube, load_configuration

pytestmark = pytest.mark.e2e


class OnePod:
    """A cache that knows one pod, by uid."""

    def __init__(self, namespace: str, uid: str) -> None:
        self._known = (namespace, "trainer", uid)

    def run_of_pod(self, namespace: str, pod_name: str, pod_uid: str) -> Caller | None:
        if (namespace, pod_name, pod_uid) != self._known:
            return None
        return Caller(namespace, "sft", uid="u", attempt=1, pod=pod_name)


def make_pod(namespace: str, name: str) -> str:
    """Makes a pod that fits no node, which is enough to hold a token; returns its uid."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    cluster.wait_until(
        lambda: cluster.get("serviceaccount", namespace, "default"), "the namespace's account"
    )
    container = {"name": "main", "image": "none", "securityContext": restricted}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeSelector": {"llmtrain.dev/none": "x"}, "containers": [container]},
        }
    )
    return str(cluster.get("pod", namespace, name)["metadata"]["uid"])


def make_token(namespace: str, pod: str = "", audience: str = TOKEN_AUDIENCE) -> str:
    """Returns a token of the namespace's default account, bound to a pod if one is named."""
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
    made = cluster.kubectl(
        "create", "token", "default", "-n", namespace, f"--audience={audience}", *bound
    )
    return made.stdout.strip()


@pytest.fixture
async def kube(_cluster_is_ours: None) -> AsyncIterator[Kube]:
    client = Kube(await load_configuration())
    yield client
    await client.close()


@pytest.fixture
def authenticator(kube: Kube, namespace: str) -> Authenticator:
    uid = make_pod(namespace, "trainer")
    return Authenticator(partial(kube.create, TOKEN_REVIEWS, None), OnePod(namespace, uid))


async def refusal(authenticator: Authenticator, token: str) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        await authenticator.caller(f"Bearer {token}")
    return caught.value.status, str(caught.value)


async def test_the_token_of_a_runs_pod_is_taken(
    authenticator: Authenticator, namespace: str
) -> None:
    caller = await authenticator.caller(f"Bearer {make_token(namespace, 'trainer')}")
    assert (caller.namespace, caller.pod, caller.name) == (namespace, "trainer", "sft")


async def test_other_tokens_of_the_cluster_are_refused(
    authenticator: Authenticator, namespace: str
) -> None:
    make_pod(namespace, "notebook")
    good = make_token(namespace, "trainer")
    head, claims, signature = good.split(".")
    altered = f"{head}.{claims}.{'A' * len(signature)}"
    answers = {
        "for the API server": make_token(namespace, "trainer", "https://kubernetes.default.svc"),
        "of the account": make_token(namespace),
        "of another pod": make_token(namespace, "notebook"),
        "with another signature": altered,
    }
    statuses = {name: await refusal(authenticator, token) for name, token in answers.items()}
    assert {name: status for name, (status, _) in statuses.items()} == {
        "for the API server": 401,
        "of the account": 403,
        "of another pod": 403,
        "with another signature": 401,
    }
    assert "not bound to a pod" in statuses["of the account"][1]
    assert "belongs to no LLMTrainRun" in statuses["of another pod"][1]


async def test_a_token_of_another_namespace_is_refused(
    authenticator: Authenticator, namespace: str
) -> None:
    other = f"{namespace}-other"
    cluster.kubectl("create", "namespace", other)
    try:
        make_pod(other, "trainer")
        status, text = await refusal(authenticator, make_token(other, "trainer"))
        assert (status, f"pod {other}/trainer belongs to no" in text) == (403, True)
    finally:
        cluster.kubectl("delete", "namespace", other, "--wait=false")


async def test_the_token_of_a_pod_that_is_gone_is_refused(
    authenticator: Authenticator, namespace: str
) -> None:
    token = make_token(namespace, "trainer")
    cluster.kubectl("delete", "pod", "trainer", "-n", namespace, "--grace-period=0", "--force")
    assert (await refusal(authenticator, token))[0] == 401
