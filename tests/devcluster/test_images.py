from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def images(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> ModuleType:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "no-cache"))
    return load("images")


def test_a_build_gets_the_machines_package_index_and_nothing_else(images: ModuleType) -> None:
    env = {"PIP_INDEX_URL": "https://me:it's@mirror/simple", "AWS_SECRET_ACCESS_KEY": "no"}
    assert images._index_settings(env) == (
        "PIP_INDEX_URL='https://me:it'\"'\"'s@mirror/simple'\n",
        None,
    )


def test_a_build_trusts_what_the_machine_trusts(images: ModuleType, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.touch()
    lines, certificates = images._index_settings({"SSL_CERT_FILE": str(bundle)})
    assert certificates == bundle
    assert "SSL_CERT_FILE=/run/secrets/certificates\n" in lines


def test_a_bundle_that_is_gone_is_not_mounted(images: ModuleType, tmp_path: Path) -> None:
    assert images._index_settings({"SSL_CERT_FILE": str(tmp_path / "gone")}) == ("", None)


def test_layers_of_old_builds_go_and_named_images_stay(images: ModuleType) -> None:
    listed = [
        {"id": "base", "names": ["debian:bookworm-slim"], "createdatraw": "2026-01-01T00:00:00Z"},
        {"id": "old", "names": None, "createdatraw": "2026-01-01T10:00:00.123456789Z"},
        {"id": "older", "names": None, "createdatraw": "2026-01-01T00:00:00Z"},
        {"id": "new", "names": None, "createdatraw": "2026-02-01T00:00:00Z"},
    ]
    week_ago = datetime(2026, 1, 20, tzinfo=UTC)
    assert images.unnamed_since(listed, week_ago) == ["old", "older"]
