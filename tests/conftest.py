"""Options that hold for all tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--e2e", action="store_true", help="run the tests that need the cluster")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the cluster's tests out unless asked, so that `pytest` works on a bare clone."""
    if config.getoption("--e2e"):
        return
    left_out = [item for item in items if item.get_closest_marker("e2e")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("e2e")]
