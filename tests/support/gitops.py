"""What GitOps engines make of an object: kstatus (Flux), and our Lua scripts for Argo CD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

Object = dict[str, Any]
SCRIPTS = Path(__file__).parents[2] / "charts" / "llmtrain" / "files" / "argocd"


def kstatus(obj: Object) -> str:
    """Returns the status of an object by the published rules of kstatus, for custom resources.

    https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
    """
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    status = obj.get("status") or {}
    if (
        status.get("observedGeneration", obj["metadata"]["generation"])
        != (obj["metadata"]["generation"])
    ):
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return "InProgress"
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return "Failed"
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"


def lua(script: str, obj: Object) -> Any:
    """Returns what a script of the chart, such as `LLMTrainRun/health.lua`, makes of an object.

    Argo CD runs Lua 5.1 with the object as the global `obj`.
    """
    runtime = LuaRuntime(unpack_returned_tuples=True)
    runtime.globals().obj = _table(runtime, obj)
    return _plain(runtime.execute((SCRIPTS / script).read_text(encoding="utf-8")))


def _table(runtime: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return runtime.table_from({key: _table(runtime, item) for key, item in value.items()})
    if isinstance(value, list):
        return runtime.table_from([_table(runtime, item) for item in value])
    return value


def _plain(value: Any) -> Any:
    """Returns a table as a dict, or as a list where its keys count from 1."""
    if lua_type(value) != "table":
        return value
    items = {key: _plain(item) for key, item in value.items()}
    if items and list(items) == list(range(1, len(items) + 1)):
        return list(items.values())
    return items
