from __future__ import annotations

from typing import Any

import specs

from llmtrain_api.crd.definition import llmtrainruns
from llmtrain_api.crd.frozen import frozen_rules
from llmtrain_api.crd.schema import structural_schema
from llmtrain_api.markers import MUTABLE, VALIDATIONS
from llmtrain_api.run import RunSpec

NOT_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.attempt) || "

STRING: dict[str, Any] = {"type": "string"}
FREE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True},
}


def conditions(spec: dict[str, Any]) -> dict[str, str]:
    """Returns the condition of each rule, without what all have in common, by its field."""
    rules = frozen_rules({"type": "object", **spec})
    assert all(rule["rule"].startswith(NOT_STARTED) for rule in rules)
    return {rule["fieldPath"]: rule["rule"].removeprefix(NOT_STARTED)[1:-1] for rule in rules}


def test_a_required_field_is_compared() -> None:
    spec = {"properties": {"stage": STRING}, "required": ["stage"]}
    assert conditions(spec) == {".spec.stage": "self.spec.stage == oldSelf.spec.stage"}


def test_a_field_with_a_default_is_compared() -> None:
    spec = {"properties": {"seed": {"type": "integer", "default": 42}}}
    assert conditions(spec) == {".spec.seed": "self.spec.seed == oldSelf.spec.seed"}


def test_an_optional_field_may_neither_come_nor_go() -> None:
    assert conditions({"properties": {"image": STRING}}) == {
        ".spec.image": "has(self.spec.image) == has(oldSelf.spec.image) &&"
        " (!has(self.spec.image) || self.spec.image == oldSelf.spec.image)"
    }


def test_a_block_that_is_always_there_is_compared_field_by_field() -> None:
    block = {"properties": {"seed": STRING}, "required": ["seed"], "default": {}}
    assert conditions({"properties": {"training": block}}) == {
        ".spec.training.seed": "self.spec.training.seed == oldSelf.spec.training.seed"
    }


def test_an_optional_block_is_reported_once_when_it_comes_or_goes() -> None:
    block = {"properties": {"rank": {"type": "integer", "default": 16}}}
    assert conditions({"properties": {"lora": block}}) == {
        ".spec.lora": "has(self.spec.lora) == has(oldSelf.spec.lora)",
        ".spec.lora.rank": "!has(self.spec.lora) || !has(oldSelf.spec.lora) ||"
        " (self.spec.lora.rank == oldSelf.spec.lora.rank)",
    }


def test_free_fields_are_read_past_the_type_check() -> None:
    block = {"properties": {"free": FREE}, "default": {}}
    assert conditions({"properties": {"block": block}}) == {
        ".spec.block.free": "has(dyn(self.spec.block).free) == has(dyn(oldSelf.spec.block).free) &&"
        " (!has(dyn(self.spec.block).free) ||"
        " dyn(self.spec.block).free == dyn(oldSelf.spec.block).free)"
    }


def test_a_mutable_field_has_no_rule() -> None:
    assert conditions({"properties": {"suspend": {"type": "boolean", MUTABLE: True}}}) == {}


def test_a_message_says_the_way_out_and_the_api_server_names_the_field() -> None:
    (rule,) = frozen_rules({"properties": {"stage": STRING}, "required": ["stage"]})
    assert rule["fieldPath"] == ".spec.stage"
    assert rule["reason"] == "FieldValueForbidden"
    assert "delete this run and apply it again under another name" in rule["message"]


def frozen_fields() -> set[str]:
    rules = frozen_rules(structural_schema(RunSpec))
    return {rule["fieldPath"].removeprefix(".spec.") for rule in rules}


def leaves(schema: dict[str, Any], at: str = "") -> set[str]:
    """Returns the path of each field of a spec that holds a value."""
    found = set()
    for name, field in schema["properties"].items():
        found |= leaves(field, f"{at}{name}.") if "properties" in field else {f"{at}{name}"}
    return found


def test_every_field_is_either_frozen_or_mutable() -> None:
    every = leaves(structural_schema(RunSpec))
    assert every - frozen_fields() == set(specs.MUTABLE_VALUES)


def test_the_cluster_is_asked_about_every_frozen_field() -> None:
    assert frozen_fields() == set(specs.OTHER_VALUES)


def test_the_full_spec_sets_every_field_but_one_of_two() -> None:
    every = leaves(structural_schema(RunSpec))
    unset = {path for path in every if specs.read(specs.everything(), path) is specs.REMOVE}
    assert unset == {"training.maxSteps"}  # It excludes `training.epochs`.


def test_our_own_mark_is_not_published() -> None:
    assert MUTABLE not in str(llmtrainruns())


def test_the_rules_stand_at_the_root() -> None:
    version = llmtrainruns()["spec"]["versions"][0]
    rules = version["schema"]["openAPIV3Schema"][VALIDATIONS]
    assert len(rules) == 1 + len(frozen_fields())
