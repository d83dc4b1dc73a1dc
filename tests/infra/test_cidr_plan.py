"""The address plan: what a network engineer must be able to rely on for years."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cidr_plan import TIERS, TierBlock, plan_subnets, zone_slot

zones = st.lists(st.sampled_from([f"eu-west-1{letter}" for letter in "abcdefgh"]), min_size=1, max_size=8, unique=True)
vpcs = st.builds(
    lambda octets, prefix: IPv4Network(f"10.{octets}.0.0/{prefix}"),
    st.integers(0, 255),
    st.integers(16, 20),
)


@given(vpc=vpcs, zones=zones)
def test_no_two_subnets_overlap_and_all_lie_inside_the_vpc(vpc: IPv4Network, zones: list[str]) -> None:
    plan = plan_subnets(vpc, zones)
    assert len(plan) == len(TIERS) * len(zones)
    assert all(block.subnet_of(vpc) for block in plan.values())
    assert not any(first.overlaps(second) for first, second in combinations(plan.values(), 2))


@given(vpc=vpcs, zones=zones, more=zones)
def test_a_new_zone_moves_no_subnet(vpc: IPv4Network, zones: list[str], more: list[str]) -> None:
    before = plan_subnets(vpc, zones)
    after = plan_subnets(vpc, dict.fromkeys([*more, *zones]))
    assert {key: after[key] for key in before} == before


@given(vpc=vpcs, zones=zones, bits=st.integers(8, 9))
def test_an_appended_tier_moves_no_subnet(vpc: IPv4Network, zones: list[str], bits: int) -> None:
    before = plan_subnets(vpc, zones)
    try:
        after = plan_subnets(vpc, zones, (*TIERS, TierBlock("analytics", bits)))
    except ValueError:
        assert vpc.prefixlen + bits > 28
        return
    assert {key: after[key] for key in before} == before


@given(vpc=vpcs, zones=zones)
def test_the_order_of_zones_does_not_matter(vpc: IPv4Network, zones: list[str]) -> None:
    assert plan_subnets(vpc, zones) == plan_subnets(vpc, list(reversed(zones)))


def test_private_subnets_of_a_16_hold_4091_pods_each() -> None:
    plan = plan_subnets(IPv4Network("10.40.0.0/16"), ["eu-west-1a"])
    assert str(plan["private", "eu-west-1a"]) == "10.40.0.0/20"


def test_a_tier_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="'huge' does not fit"):
        plan_subnets(IPv4Network("10.40.0.0/16"), ["eu-west-1a"], (*TIERS, TierBlock("huge", 4)))


@pytest.mark.parametrize("zone", ["eu-west-1", "eu-west-1z", ""])
def test_a_zone_without_a_slot_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="has no slot"):
        zone_slot(zone)
