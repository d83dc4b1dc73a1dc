"""The network, in the words of who must trust it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from infra.components.network import INTERFACE_ENDPOINTS, NatGateways, Network, NetworkArgs
from infra.settings import DataClass
from infra.tags import Tags

ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c")
ARGS = NetworkArgs(
    region="eu-west-1",
    account_id="111111111111",
    vpc_cidr="10.40.0.0/16",
    availability_zones=ZONES,
    nat_gateways=NatGateways.PER_ZONE,
    logs_key_arn="arn:key",
    log_retention_days=365,
    tags=Tags("grandmodel", "test", "team", "cc-1", DataClass.INTERNAL),
)
Build = Callable[[Callable[[], object]], Any]


@pytest.fixture
def network(build: Build) -> Any:
    return build(lambda: Network("network", ARGS))


def test_data_tiers_have_no_way_out_of_the_vpc(network: Any) -> None:
    routed = {route["routeTableId"] for route in network.of("ec2/route:Route").values()}
    assert not routed & {"network-database-id", "network-cache-id"}


def test_every_subnet_is_in_a_route_table_of_ours(network: Any) -> None:
    subnets = {f"{name}-id" for name in network.of("ec2/subnet:Subnet")}
    associated = {a["subnetId"] for a in network.of("routeTableAssociation:RouteTableAssociation").values()}
    assert associated == subnets
    assert len(subnets) == 12


def test_each_zone_leaves_by_its_own_nat_gateway(network: Any) -> None:
    routes = {name: route for name, route in network.of("ec2/route:Route").items() if "natGatewayId" in route}
    assert {name: route["natGatewayId"] for name, route in routes.items()} == {
        f"network-private-{letter}-nat": f"network-nat-{letter}-id" for letter in "abc"
    }


def test_a_cheap_stack_shares_one_nat_gateway(build: Build) -> None:
    network = build(lambda: Network("network", replace(ARGS, nat_gateways=NatGateways.SINGLE)))
    assert len(network.of("natGateway:NatGateway")) == len(network.of("ec2/eip:Eip")) == 1
    routes = [route for route in network.of("ec2/route:Route").values() if "natGatewayId" in route]
    assert {route["natGatewayId"] for route in routes} == {"network-nat-a-id"}


def test_nothing_gets_a_public_address_by_itself(network: Any) -> None:
    assert not any(subnet["mapPublicIpOnLaunch"] for subnet in network.of("ec2/subnet:Subnet").values())


def test_whoever_forgets_a_security_group_reaches_nothing(network: Any) -> None:
    group = network.one("defaultSecurityGroup:DefaultSecurityGroup")
    assert group["ingress"] == group["egress"] == []
    assert network.one("defaultRouteTable:DefaultRouteTable")["routes"] == []


@pytest.mark.parametrize(("tier", "port"), [("database", 5432), ("cache", 6379)])
def test_a_data_tier_talks_to_the_private_tier_and_to_itself_only(network: Any, tier: str, port: int) -> None:
    rules = [r for name, r in network.of("networkAclRule:NetworkAclRule").items() if name.startswith(f"network-{tier}")]
    subnets = network.of("ec2/subnet:Subnet")
    admitted = {s["cidrBlock"] for name, s in subnets.items() if f"-{tier}-" in name or "-private-" in name}
    assert {rule["cidrBlock"] for rule in rules} == admitted
    private = IPv4Network("10.40.0.0/17")
    inward = [r for r in rules if not r["egress"] and IPv4Network(r["cidrBlock"]).subnet_of(private)]
    assert {(r["fromPort"], r["toPort"]) for r in inward} == {(port, port)}
    assert all(len({r["ruleNumber"] for r in rules if r["egress"] is way}) == 6 for way in (True, False))


def test_private_workloads_reach_aws_without_the_internet(network: Any) -> None:
    services = {e["serviceName"].rsplit("eu-west-1.", 1)[1] for e in network.of("vpcEndpoint:VpcEndpoint").values()}
    assert services == {*INTERFACE_ENDPOINTS, "s3"}
    for endpoint in network.of("vpcEndpoint:VpcEndpoint").values():
        first = json.loads(endpoint["policy"])["Statement"][0]
        assert first["Condition"] == {"StringEquals": {"aws:PrincipalAccount": "111111111111"}}


def test_all_traffic_is_on_record_under_our_key(network: Any) -> None:
    assert network.one("flowLog:FlowLog")["trafficType"] == "ALL"
    assert network.one("logGroup:LogGroup")["kmsKeyId"] == "arn:key"
