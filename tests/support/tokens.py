"""Pod tokens as a kubelet projects them, and the API server's review of them, without a cluster."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from llmtrain_api.layout import TOKEN_AUDIENCE
from llmtrain_operator.auth import POD_NAME, POD_UID, Caller


def make_token(
    pod: str = "sft-a1-0",
    *,
    namespace: str = "team",
    uid: str = "uid-of-sft-a1-0",
    audience: Any = TOKEN_AUDIENCE,
    expires: float | None = None,
) -> str:
    """Returns a token with the claims that the operator reads; its signature is a word."""
    claims = {
        "aud": [audience] if isinstance(audience, str) else audience,
        "exp": time.time() + 3600 if expires is None else expires,
        "kubernetes.io": {"namespace": namespace, "pod": {"name": pod, "uid": uid}},
    }
    return ".".join([_encode({"alg": "RS256"}), _encode(claims), "signature"])


class FakeReview:
    """Answers as the API server does for a token that it issued itself; counts the questions."""

    def __init__(self, **changes: Any) -> None:
        self.asked = 0
        self.changes = changes

    async def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        payload = body["spec"]["token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        bound = claims["kubernetes.io"]
        both = [a for a in claims["aud"] if a in body["spec"]["audiences"]]
        status = {
            "authenticated": bool(both),
            "audiences": both,
            "user": {
                "username": f"system:serviceaccount:{bound['namespace']}:default",
                "extra": {POD_NAME: [bound["pod"]["name"]], POD_UID: [bound["pod"]["uid"]]},
            },
        }
        return {**body, "status": {**status, **self.changes}}


class FakePods:
    """A cache that knows pod 0 of attempt 1 of the run `sft` in namespace `team`."""

    def run_of_pod(self, namespace: str, pod_name: str, pod_uid: str) -> Caller | None:
        if (namespace, pod_name, pod_uid) != ("team", "sft-a1-0", "uid-of-sft-a1-0"):
            return None
        return Caller(namespace, "sft", uid="uid-of-sft", attempt=1, pod=pod_name)


def _encode(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
