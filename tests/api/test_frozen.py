from __future__ import annotations

import re
from typing import Any

import other_values
import pytest
import specs

from llmtrain_api.crd.definition import llmtrainruns
from llmtrain_api.crd.frozen import frozen_rules
from llmtrain_api.crd.schema import structural_schema
from llmtrain_api.markers import MUTABLE, VALIDATIONS
from llmtrain_api.run import NOT_FROM_ITSELF, RunSpec

NOT_STARTED = " || !has(oldSelf.status) || !has(oldSelf.status.attempt)"
MESSAGE = (
    "cannot change once the run has started: set it back, or delete this run and apply it again"
    " under another name and output"
)

Schema = dict[str, Any]
STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "default": 42}
FREE: Schema = {
    "type": "object",
    "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True},
}
MAY_CHANGE: Schema = {"type": "boolean", "default": False, MUTABLE: True}


def rule_of(spec: Schema) -> Schema:
    """Returns the only rule of a spec."""
    (rule,) = frozen_rules({"type": "object", **spec})
    return rule


def condition(spec: Schema) -> str:
    """Returns the condition of the only rule of a spec, without what all have in common."""
    rule = rule_of(spec)["rule"]
    assert rule.endswith(NOT_STARTED)
    return str(rule.removesuffix(NOT_STARTED)[1:-1])


def names(spec: Schema) -> list[tuple[str, str]]:
    """Returns the conditions in the message of the only rule, each with the name that it gives."""
    chain, message = rule_of(spec)["messageExpression"].split("'') + ")
    assert message == f"'{MESSAGE}'"
    assert chain.startswith("(")
    links = [link.split(" ? '") for link in chain[1:].split("' : ")[:-1]]
    return [(when, name) for when, name in links]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            {"properties": {"stage": STRING}, "required": ["stage"]},
            "self.spec.stage == oldSelf.spec.stage",
            id="a required field is compared",
        ),
        pytest.param(
            {"properties": {"seed": NUMBER}},
            "self.spec.seed == oldSelf.spec.seed",
            id="a field with a default is compared",
        ),
        pytest.param(
            {"properties": {"image": STRING}},
            "has(self.spec.image) ? has(oldSelf.spec.image) && self.spec.image =="
            " oldSelf.spec.image : !has(oldSelf.spec.image)",
            id="an optional field may neither come nor go",
        ),
        pytest.param(
            {"properties": {"training": {"properties": {"free": FREE}, "default": {}}}},
            "self.spec.training == oldSelf.spec.training",
            id="a block is compared as a whole, free fields included",
        ),
        pytest.param(
            {"properties": {"lora": {"properties": {"rank": NUMBER}}}},
            "has(self.spec.lora) ? has(oldSelf.spec.lora) && self.spec.lora == oldSelf.spec.lora"
            " : !has(oldSelf.spec.lora)",
            id="an optional block may neither come nor go",
        ),
        pytest.param(
            {
                "properties": {
                    "policy": {
                        "properties": {"limit": MAY_CHANGE, "seed": NUMBER, "image": STRING},
                        "default": {},
                    }
                }
            },
            "(self.spec.policy.seed == oldSelf.spec.policy.seed) && (has(self.spec.policy.image) ?"
            " has(oldSelf.spec.policy.image) && self.spec.policy.image =="
            " oldSelf.spec.policy.image : !has(oldSelf.spec.policy.image))",
            id="a block with a mutable field is compared by its other fields",
        ),
        pytest.param(
            {"properties": {"free": FREE}, "required": ["free"]},
            "dyn(self.spec).free == dyn(oldSelf.spec).free",
            id="free fields by themselves are read past the type check",
        ),
    ],
)
def test_what_was_must_stay(spec: Schema, expected: str) -> None:
    assert condition(spec) == expected


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(MAY_CHANGE, id="a field"),
        pytest.param({"properties": {"limit": MAY_CHANGE}, "default": {}}, id="all of a block"),
    ],
)
def test_what_may_change_has_no_rule(field: Schema) -> None:
    assert frozen_rules({"properties": {"one": field}}) == []


def test_a_rule_says_the_way_out_and_the_api_server_names_the_field() -> None:
    assert rule_of({"properties": {"stage": STRING}, "required": ["stage"]}) == {
        "rule": f"(self.spec.stage == oldSelf.spec.stage){NOT_STARTED}",
        "message": MESSAGE,
        "reason": "FieldValueForbidden",
        "fieldPath": ".spec.stage",
    }


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(
            {"properties": {"seed": NUMBER, "optim": NUMBER}, "default": {}},
            [
                ("!(self.spec.one.seed == oldSelf.spec.one.seed)", "seed "),
                ("!(self.spec.one.optim == oldSelf.spec.one.optim)", "optim "),
            ],
            id="its fields, the first one first",
        ),
        pytest.param(
            {"properties": {"rank": NUMBER}},
            [
                ("has(self.spec.one) != has(oldSelf.spec.one)", ""),
                ("has(self.spec.one) && !(self.spec.one.rank == oldSelf.spec.one.rank)", "rank "),
            ],
            id="none of them where it came or went itself",
        ),
        pytest.param(
            {"properties": {"lora": {"properties": {"rank": NUMBER}}}, "default": {}},
            [
                ("has(self.spec.one.lora) != has(oldSelf.spec.one.lora)", "lora "),
                (
                    "has(self.spec.one.lora) &&"
                    " !(self.spec.one.lora.rank == oldSelf.spec.one.lora.rank)",
                    "lora.rank ",
                ),
            ],
            id="a block in it, then what is in that",
        ),
        pytest.param(
            {"properties": {"free": FREE, "limit": MAY_CHANGE}, "required": ["free"]}
            | {"default": {}},
            [("!(dyn(self.spec.one).free == dyn(oldSelf.spec.one).free)", "free ")],
            id="free fields as one, and nothing that may change",
        ),
    ],
)
def test_the_message_names_what_changed_in_a_block(
    block: Schema, expected: list[tuple[str, str]]
) -> None:
    assert names({"properties": {"one": block}}) == expected


def fields(schema: Schema, at: str = "") -> set[str]:
    """Returns the path of each field that holds a value, and of each block that may be absent."""
    found = set()
    for name, field in schema["properties"].items():
        path = f"{at}{name}"
        if "properties" not in field:
            found.add(path)
            continue
        found |= fields(field, f"{path}.")
        if name not in schema.get("required", []) and "default" not in field:
            found.add(path)
    return found


def frozen_fields() -> set[str]:
    """Returns the path of every field that a message of the CRD names."""
    found = set()
    for rule in frozen_rules(structural_schema(RunSpec)):
        block = rule["fieldPath"].removeprefix(".spec.")
        named = re.findall(r"\? '([\w.]*) ?' : ", rule.get("messageExpression", "? '' : "))
        found |= {f"{block}.{name}".rstrip(".") for name in named}
    return found


def test_every_field_is_either_frozen_or_mutable() -> None:
    assert fields(structural_schema(RunSpec)) - frozen_fields() == set(other_values.MUTABLE_VALUES)


def test_the_cluster_is_asked_about_every_frozen_field() -> None:
    assert frozen_fields() == set(other_values.OTHER_VALUES)


@pytest.mark.parametrize("path", sorted(fields(structural_schema(RunSpec))))
def test_some_full_spec_sets_every_field(path: str) -> None:
    spec = specs.holding(path)
    if path in other_values.OTHER_VALUES:
        assert specs.read(spec, path) != other_values.OTHER_VALUES[path]


def test_our_own_mark_is_not_published() -> None:
    assert MUTABLE not in str(llmtrainruns())


def test_the_rules_stand_at_the_root_one_for_each_block() -> None:
    version = llmtrainruns()["spec"]["versions"][0]
    rules = version["schema"]["openAPIV3Schema"][VALIDATIONS]
    blocks = {path.split(".")[0] for path in frozen_fields()}
    assert [rule["fieldPath"] for rule in rules[1 + len(NOT_FROM_ITSELF) :]] == [
        f".spec.{name}" for name in structural_schema(RunSpec)["properties"] if name in blocks
    ]


def test_the_api_server_can_read_each_message() -> None:
    """Its parser takes 100,000 characters and 250 levels, and a message has no line break."""
    for rule in frozen_rules(structural_schema(RunSpec)):
        expression = rule.get("messageExpression", "")
        assert len(expression) < 100_000
        assert expression.count(" ? ") < 250
        assert "\n" not in expression
