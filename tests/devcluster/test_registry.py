import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.parametrize(
    ("env", "prefix", "secure"),
    [
        pytest.param(
            {"IMAGE_REGISTRY": "registry.example.com"},
            "registry.example.com/llmtrain-",
            True,
            id="certificates are verified",
        ),
        pytest.param(
            {"IMAGE_REGISTRY": "host:5000/team/", "IMAGE_REGISTRY_INSECURE": "1"},
            "host:5000/team/llmtrain-",
            False,
            id="unless told not to",
        ),
    ],
)
def test_users_registry(
    load: Callable[[str], ModuleType], env: dict[str, str], prefix: str, secure: bool
) -> None:
    registry = load("registry")
    assert registry.users_registry(env) == registry.Registry(prefix, secure=secure)


@pytest.mark.parametrize("address", ["", "https://registry.example.com"])
def test_no_address_of_a_registry(load: Callable[[str], ModuleType], address: str) -> None:
    registry = load("registry")
    with pytest.raises(registry.DevclusterError, match=r"IMAGE_REGISTRY is .*for instance"):
        registry.users_registry({"IMAGE_REGISTRY": address})


def test_images_go_to_the_users_registry_and_are_noted(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = load("registry")
    commands = []

    def run(argv: list[str], *, env: dict[str, str]) -> str:
        commands.append((argv, env))
        Path(argv[argv.index("--digestfile") + 1]).write_text(f"sha256:{argv[-2]}\n")
        return ""

    (tmp_path / "built").write_text(json.dumps({"operator": "aa", "trainer": "bb"}))
    for name, value in {
        "OWN_CLUSTER": True,
        "BUILT": tmp_path / "built",
        "IMAGES": tmp_path,
        "TEMPORARY": tmp_path,
        "_MANIFEST": tmp_path / "images.json",
        "run": run,
    }.items():
        monkeypatch.setattr(registry, name, value)
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example.com")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com")
    monkeypatch.delenv("IMAGE_REGISTRY_INSECURE", raising=False)
    registry.push()
    assert json.loads((tmp_path / "images.json").read_text()) == {
        "operator": "registry.example.com/llmtrain-operator@sha256:aa",
        "trainer": "registry.example.com/llmtrain-trainer@sha256:bb",
    }
    argv, env = commands[0]
    assert argv[-2:] == ["aa", "docker://registry.example.com/llmtrain-operator:dev"]
    assert "--tls-verify=true" in argv
    assert env["HTTPS_PROXY"] == "http://proxy.example.com"
