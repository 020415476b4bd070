"""The API server's audit log, read after all other tests: every right is used, none was missing.

The file's name puts it last: it judges what the operator did in the tests before it.
"""

from __future__ import annotations

import audit
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]


def test_each_right_of_the_operator_is_used_and_nothing_was_refused() -> None:
    used, refused = audit.used_and_refused("llmtrain-system", "llmtrain")
    granted = audit.granted("llmtrain")
    assert granted
    assert sorted(granted - used) == [], "rights that the operator has and does not use"
    assert refused == []
