"""The administrator's settings, from environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtrain_operator.settings import SettingsError, from_environment


def test_defaults() -> None:
    settings = from_environment({})
    assert settings.watch_namespaces == ()
    assert settings.tls_folder is None
    assert settings.progress_url == ("https://llmtrain.llmtrain-system.svc:8443/v1alpha1/progress")


def test_variables_are_read() -> None:
    settings = from_environment(
        {
            "LLMTRAIN_WATCH_NAMESPACES": "a, b,",
            "LLMTRAIN_TLS_FOLDER": "/tls",
            "LLMTRAIN_WORKERS": "4",
            "LLMTRAIN_SERVICE_NAME": "train",
            "LLMTRAIN_NAMESPACE": "ml",
            "LLMTRAIN_LOG_LEVEL": "",
            "OTHER": "x",
        }
    )
    assert settings.watch_namespaces == ("a", "b")
    assert settings.tls_folder == Path("/tls")
    assert settings.workers == 4
    assert settings.service_host == "train.ml.svc"
    assert settings.log_level == "INFO", "an empty variable is none"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "none"),
        ("WORKERS", "0"),
        ("HEALTH_PORT", "70000"),
        ("LOG_LEVEL", "loud"),
        ("STATUS_INTERVAL_SECONDS", "-1"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"LLMTRAIN_{name}: .* not '{value}'"):
        from_environment({f"LLMTRAIN_{name}": value})
