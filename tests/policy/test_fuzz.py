"""Whatever stands in a property, or is missing there, the pack answers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policy.catalog import RULES
from policy.model import UNKNOWN, Estate, Resource, Secret
from policy.rule import Outcome
from policy.settings import own_settings
from policy.verdict import ANY_TYPE, Judge

JUDGE = Judge.of(RULES, own_settings(RULES))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.just("{not json"),
    st.just('{"Statement": 7}'),
    st.just('{"Statement": [{"Effect": "Allow", "Action": 3, "Principal": [1], "Condition": "x"}]}'),
    st.just([]),
    st.just({}),
    st.just([None, 1, "x", {}]),
    st.just({"x": {"y": [{}]}}),
    st.just(UNKNOWN),
    st.just(Secret(UNKNOWN)),
    st.just(Secret("plain")),
)


def spoilt(value: Any, chance: random.Random, odd: Any) -> Any:
    """``value`` with one property, somewhere inside it, deleted or replaced by ``odd``."""
    if isinstance(value, Mapping) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: spoilt(value[key], chance, odd)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [spoilt(item, chance, odd) if i == at else item for i, item in enumerate(value)]
    return odd


# Shrinking would judge the whole estate thousands of times; the seed is enough to find the culprit.
@settings(max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32), odd=ODD)
def test_no_property_can_crash_a_rule(production: Estate, seed: int, odd: Any) -> None:
    """A twentieth of all resources is spoilt at once, each in one place."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    changed = [
        replace(r, properties=spoilt(r.properties, chance, odd)) if chance.random() < 0.05 and r.properties else r
        for r in production.resources
    ]
    estate = Estate(tuple(r if isinstance(r.properties, Mapping) else replace(r, properties={}) for r in changed))
    report = JUDGE.judge(estate)
    assert {v.rule.id for v in report.of(Outcome.UNDECIDED) if "the rule itself failed" in v.what} == set()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    rule=st.sampled_from(RULES),
    properties=st.dictionaries(
        st.sampled_from(["metadata", "spec", "policy", "tags", "name", "ingress", "rules", "subnetIds", "data", "x"]),
        st.recursive(
            ODD,
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=6,
    ),
)
def test_no_rule_crashes_on_a_resource_of_any_shape(rule: Any, properties: dict[str, Any]) -> None:
    for token in rule.types:
        kind = "aws:ec2/vpc:Vpc" if token == ANY_TYPE else token
        resource = Resource(f"urn:pulumi:production::p::{kind}::r", kind, "r", properties)
        for verdict in JUDGE.verdicts_on(rule, resource, Estate((resource,))):
            assert "the rule itself failed" not in verdict.what


def test_a_huge_value_takes_no_time(production: Estate) -> None:
    """Ten megabytes in one property."""
    first = production.of("aws:rds/instance:Instance")[0]
    huge = replace(first, properties={**first.properties, "username": "x" * 10_000_000})
    estate = Estate(tuple(huge if r is first else r for r in production.resources))
    assert JUDGE.judge(estate).of(Outcome.VIOLATED) == []
