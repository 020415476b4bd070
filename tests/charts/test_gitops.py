"""What the chart and the kustomize base give to Argo CD and kustomize, by `helm` and `kubectl`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from gitops import SCRIPTS

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
IMAGES = ("image.repository=registry.example/operator", "trainerImage=registry.example/trainer:1")


def rendered(*values: str) -> list[dict[str, Any]]:
    """Returns the ConfigMaps for Argo CD in the chart."""
    settings = [f"--set={value}" for value in (*IMAGES, *values)]
    chart = str(ROOT / "charts" / "llmtrain")
    done = subprocess.run(
        ["helm", "template", "llmtrain", chart, "--kube-version", "1.35.4", *settings],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    return [one for one in objects if one["metadata"]["name"].endswith("-argocd")]


def test_customizations_of_argo_cd_are_left_out_unless_wanted() -> None:
    assert rendered() == []


@pytest.mark.parametrize("kind", ["LLMTrainRun", "LLMTrainSchedule"])
def test_the_config_map_holds_the_scripts_as_argo_cd_reads_them(kind: str) -> None:
    [config_map] = rendered("argocd.enabled=true")
    data, folder = config_map["data"], SCRIPTS / kind

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8").strip()

    prefix = "resource.customizations"
    assert data[f"{prefix}.health.llmtrain.dev_{kind}"].strip() == text("health.lua")
    actions = yaml.safe_load(data[f"{prefix}.actions.llmtrain.dev_{kind}"])
    assert actions["discovery.lua"].strip() == text("discovery.lua")
    told = {one["name"]: one["action.lua"].strip() for one in actions["definitions"]}
    scripts = {path.stem: text(f"actions/{path.name}") for path in folder.glob("actions/*.lua")}
    assert told == scripts


def test_progress_alone_is_no_reason_to_look_at_an_application_again() -> None:
    [config_map] = rendered("argocd.enabled=true")
    key = "resource.customizations.ignoreResourceUpdates.llmtrain.dev_LLMTrainRun"
    assert yaml.safe_load(config_map["data"][key]) == {"jsonPointers": ["/status/progress"]}


SCHEDULE = """
apiVersion: llmtrain.dev/v1alpha1
kind: LLMTrainSchedule
metadata: {name: weekly, namespace: llmtrain-demo}
spec:
  schedule: "@weekly"
  runTemplate:
    spec:
      stage: SFT
      model: {fromRun: {name: tale-sft}}
      workers: {image: trainer}
      storage: {secretName: s3-credentials}
"""


def built(folder: Path, **overlay: Any) -> dict[str, dict[str, Any]]:
    """Returns what `kubectl kustomize` makes of an overlay over examples/chain.yaml, by name."""
    base = folder / "base"
    base.mkdir()
    (folder / "prod").mkdir()
    shutil.copy(ROOT / "charts" / "kustomize" / "references.yaml", base)
    shutil.copy(ROOT / "examples" / "chain.yaml", base)
    (base / "schedule.yaml").write_text(SCHEDULE)
    names = {
        "resources": ["chain.yaml", "schedule.yaml"],
        "configurations": ["references.yaml"],
    }
    (base / "kustomization.yaml").write_text(yaml.safe_dump(names))
    settings = {"resources": ["../base"], **overlay}
    (folder / "prod" / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder / "prod")], capture_output=True, text=True, check=True
    )
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all(done.stdout)}


def test_kustomize_renames_what_runs_and_schedules_name(tmp_path: Path) -> None:
    secret = {"name": "s3-credentials", "namespace": "llmtrain-demo", "literals": ["a=b"]}
    objects = built(tmp_path, nameSuffix="-v7", secretGenerator=[secret])
    [made] = [name for name, one in objects.items() if one["kind"] == "Secret"]
    assert made.startswith("s3-credentials-v7-")
    runs = {name: one["spec"] for name, one in objects.items() if one["kind"] == "LLMTrainRun"}
    assert set(runs) == {"tale-dpo-v7", "tale-sft-v7", "tale-pretrain-v7", "tale-tokenizer-v7"}
    assert {spec["storage"]["secretName"] for spec in runs.values()} == {made}
    assert runs["tale-dpo-v7"]["model"]["fromRun"]["name"] == "tale-sft-v7"
    assert runs["tale-pretrain-v7"]["tokenizer"]["fromRun"]["name"] == "tale-tokenizer-v7"
    template = objects["weekly-v7"]["spec"]["runTemplate"]["spec"]
    assert template["model"]["fromRun"]["name"] == "tale-sft-v7"
    assert template["storage"]["secretName"] == made


def test_kustomize_sets_images_of_runs_and_schedules(tmp_path: Path) -> None:
    added = [{"op": "add", "path": "/spec/workers/image", "value": "trainer"}]
    patch = {"target": {"kind": "LLMTrainRun"}, "patch": json.dumps(added)}
    image = {"name": "trainer", "newName": "registry.example/trainer", "newTag": "0.2.0"}
    objects = built(tmp_path, patches=[patch], images=[image])
    weekly = objects.pop("weekly")["spec"]["runTemplate"]["spec"]
    images = {one["spec"]["workers"]["image"] for one in objects.values()}
    assert images | {weekly["workers"]["image"]} == {"registry.example/trainer:0.2.0"}
