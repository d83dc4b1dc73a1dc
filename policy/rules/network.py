"""The network graph: who is public, how traffic leaves, what is logged, which AWS APIs are reached privately."""

from __future__ import annotations

from collections.abc import Iterator

from policy.model import Estate, Node, Resource
from policy.rule import Case, Finding, NotApplicable, Rule, Severity, Violation
from policy.rules.documents import is_everyone, statements
from policy.rules.types import (
    CACHE_SUBNETS,
    DATABASE_SUBNETS,
    DEFAULT_SECURITY_GROUP,
    DEFAULT_VPC,
    ELASTIC_IP,
    FLOW_LOG,
    INTERNET_GATEWAY,
    NAT_GATEWAY,
    NODE_GROUP,
    ROUTE,
    ROUTE_TABLE,
    ROUTE_TABLE_ASSOCIATION,
    SUBNET,
    VPC,
    VPC_ENDPOINT,
)

_ANYWHERE = {"0.0.0.0/0", "::/0"}
_DESTINATIONS = ("destinationCidrBlock", "destinationIpv6CidrBlock", "cidrBlock", "ipv6CidrBlock")
_SERVICES = [
    "ecr.api",
    "ecr.dkr",
    "ec2",
    "eks",
    "eks-auth",
    "elasticloadbalancing",
    "kms",
    "logs",
    "s3",
    "secretsmanager",
    "sts",
]


def _flow_logs(case: Case) -> Iterator[Finding]:
    logs = [
        log for log in case.estate.referrers(case.resource, FLOW_LOG) if case.estate.refers(log, "vpcId", case.resource)
    ]
    if not logs:
        yield Violation("no flow log watches the VPC")
    elif all(log.node.text("trafficType") not in {"ALL", "REJECT"} for log in logs):
        yield Violation("its flow logs leave out rejected traffic")


def _default_group_empty(case: Case) -> Iterator[Finding]:
    groups = case.estate.referrers(case.resource, DEFAULT_SECURITY_GROUP)
    if not groups:
        yield Violation("the default security group is left as AWS made it: everything inside it may talk")
    for group in groups:
        for direction in ("ingress", "egress"):
            if group.node.read(direction):
                yield Violation(f"the default security group has {direction} rules", group.urn)


def _never(case: Case) -> Iterator[Finding]:
    yield Violation(f"{case.resource.name} adopts the account's default VPC")


def _default_routes(resource: Resource) -> Iterator[Node]:
    """The routes to everywhere that a route or route table declares."""
    items = [resource.node] if resource.type == ROUTE else resource.node.nodes("routes")
    for item in items:
        if any(item.text(path) in _ANYWHERE for path in _DESTINATIONS if item.has(path)):
            yield item


def _default_route_target(case: Case) -> Iterator[Finding]:
    for route in _default_routes(case.resource):
        for path in ("networkInterfaceId", "instanceId", "vpcPeeringConnectionId"):
            if route.has(path):
                yield Violation(f"the default route goes to {path}, not to a gateway")


def _goes_to_internet(estate: Estate, resource: Resource) -> bool:
    return any(
        route.has("gatewayId")
        and estate.links(resource, "gatewayId" if resource.type == ROUTE else "routes", INTERNET_GATEWAY)
        for route in _default_routes(resource)
    )


def tables_of(estate: Estate, subnet: Resource) -> list[Resource]:
    """The route tables that are associated with ``subnet``."""
    associations = estate.referrers(subnet, ROUTE_TABLE_ASSOCIATION)
    return [table for association in associations for table in estate.links(association, "routeTableId", ROUTE_TABLE)]


def is_public(estate: Estate, subnet: Resource) -> bool:
    """Whether ``subnet`` has a way from the internet: public addresses, or a default route to an internet gateway.

    Raises:
        NotKnown: a route's target is unknown and nothing was recorded for it.
    """
    if subnet.node.flag("mapPublicIpOnLaunch"):
        return True
    for table in tables_of(estate, subnet):
        if any(_goes_to_internet(estate, owner) for owner in [table, *estate.referrers(table, ROUTE)]):
            return True
    return False


def _subnets_private(case: Case) -> Iterator[Finding]:
    subnets = case.estate.links(case.resource, "subnetIds", SUBNET)
    if not subnets:
        yield Violation("subnetIds names no subnet of the estate")
    for subnet in subnets:
        if is_public(case.estate, subnet):
            yield Violation(f"subnet {subnet.name} is public")


def _has_table(case: Case) -> Iterator[Finding]:
    if not tables_of(case.estate, case.resource):
        yield Violation("no route table is associated: the VPC's main table applies")


def _nat_per_zone(case: Case) -> Iterator[Finding]:
    estate, subnet = case.estate, case.resource
    gateways = [
        gateway
        for table in tables_of(estate, subnet)
        for route in estate.referrers(table, ROUTE)
        if list(_default_routes(route)) and route.node.has("natGatewayId")
        for gateway in estate.links(route, "natGatewayId", NAT_GATEWAY)
    ]
    if not gateways:
        yield NotApplicable("has no default route through a NAT gateway")
        return
    zone = subnet.node.text("availabilityZone")
    for gateway in gateways:
        homes = estate.links(gateway, "subnetId", SUBNET)
        if all(home.node.text("availabilityZone") != zone for home in homes):
            yield Violation(
                f"leaves zone {zone} through NAT gateway {gateway.name}: that zone's failure cuts this one off"
            )


def _elastic_ip_attached(case: Case) -> Iterator[Finding]:
    node = case.node
    if node.has("instance") or node.has("networkInterface"):
        return
    if not any(user.type.startswith("aws:") for user in case.estate.referrers(case.resource)):
        yield Violation("nothing uses the address")


def _endpoints_present(case: Case) -> Iterator[Finding]:
    names = [e.node.text("serviceName") or "" for e in case.estate.referrers(case.resource, VPC_ENDPOINT)]
    for service in case.parameters["services"]:
        if not any(name.endswith(f".{service}") for name in names):
            yield Violation(f"no endpoint for {service}: calls to it leave the VPC")


def _endpoint_policy(case: Case) -> Iterator[Finding]:
    if not case.node.has("policy"):
        yield Violation("no policy is set: every principal of every account may pass")
    for statement in statements(case.node, "policy"):
        everything = any(action == "*" or action.endswith(":*") for action in statement.actions)
        anyone = any(is_everyone(principal) for principal in statement.principals)
        if statement.allows and everything and anyone and statement.covers_everything:
            yield Violation("its policy admits everyone to everything")


def _zones(case: Case, path: str, minimum: int) -> Iterator[Finding]:
    subnets = case.estate.links(case.resource, path, SUBNET)
    zones = {subnet.node.text("availabilityZone") for subnet in subnets}
    if len(zones) < minimum:
        yield Violation(f"stands in {len(zones)} availability zone{'s' * (len(zones) != 1)}, not {minimum}")


def _load_balancer_zones(case: Case) -> Iterator[Finding]:
    path = "subnets" if case.node.has("subnets") else "subnetMappings"
    if not case.node.has(path):
        yield Violation("neither subnets nor subnetMappings is set")
        return
    yield from _zones(case, path, 2)


def _subnet_group_zones(case: Case) -> Iterator[Finding]:
    yield from _zones(case, "subnetIds", 2)


def _private(rule_id: str, what: str, token: str, severity: Severity, *controls: str) -> Rule:
    return Rule(
        id=rule_id,
        title=f"{what} stand in private subnets",
        reason="In a public subnet, one wrong security group is enough to be reached from the internet.",
        remedy="Name the private, database or cache subnets in subnetIds.",
        types=(token,),
        check=_subnets_private,
        severity=severity,
        scope="stack",
        controls=controls,
    )


RULES = (
    Rule(
        id="vpc-flow-logs",
        title="Every VPC has a flow log of all or rejected traffic",
        reason="Without it, nobody can tell afterwards who talked to whom.",
        remedy="Declare an ec2.FlowLog with this vpcId and trafficType ALL.",
        types=(VPC,),
        check=_flow_logs,
        severity=Severity.MEDIUM,
        scope="stack",
        controls=("EC2.6", "CKV2_AWS_11", "CIS-AWS 3.7"),
    ),
    Rule(
        id="vpc-default-group-empty",
        title="The default security group of every VPC is empty",
        reason="Whatever is created without a group lands in it.",
        remedy="Declare an ec2.DefaultSecurityGroup for the VPC with neither ingress nor egress.",
        types=(VPC,),
        check=_default_group_empty,
        severity=Severity.HIGH,
        scope="stack",
        controls=("EC2.2", "CKV2_AWS_12", "CIS-AWS 5.4"),
    ),
    Rule(
        id="vpc-no-default",
        title="The account's default VPC is not used",
        reason="Its subnets are public and its rules are nobody's decision.",
        remedy="Remove ec2.DefaultVpc; the estate has a VPC of its own.",
        types=(DEFAULT_VPC,),
        check=_never,
        severity=Severity.MEDIUM,
        controls=("CKV_AWS_148",),
    ),
    Rule(
        id="route-default-to-gateway",
        title="Default routes go to gateways",
        reason="An instance or a peer that carries all traffic sees all of it, and is a single point of failure.",
        remedy="Route to a NAT gateway, or to an internet gateway from public subnets; narrow the routes to peers.",
        types=(ROUTE, ROUTE_TABLE),
        check=_default_route_target,
        severity=Severity.MEDIUM,
        controls=("CKV2_AWS_35", "CKV2_AWS_44"),
    ),
    Rule(
        id="subnet-has-route-table",
        title="Every subnet has a route table of its own choosing",
        reason="A subnet without one follows the main table, and becomes public when that one does.",
        remedy="Declare an ec2.RouteTableAssociation for the subnet.",
        types=(SUBNET,),
        check=_has_table,
        severity=Severity.MEDIUM,
        scope="stack",
    ),
    Rule(
        id="nat-in-own-zone",
        title="Each private subnet leaves through a NAT gateway of its own zone",
        reason="With a shared gateway, the failure of one zone cuts the others off.",
        remedy="Declare a NAT gateway in each zone and route each private subnet to its own.",
        types=(SUBNET,),
        check=_nat_per_zone,
        severity=Severity.MEDIUM,
        scope="stack",
        stacks=("production",),
    ),
    Rule(
        id="eip-attached",
        title="Every elastic address is attached",
        reason="An idle address costs money, and is a forgotten allow-list entry elsewhere.",
        remedy="Attach or release the address.",
        types=(ELASTIC_IP,),
        check=_elastic_ip_attached,
        severity=Severity.LOW,
        scope="stack",
        controls=("EC2.12", "CKV2_AWS_19"),
    ),
    Rule(
        id="vpc-endpoints-present",
        title="Every AWS API that private workloads call has an endpoint in the VPC",
        reason="Calls without an endpoint leave through the NAT gateway, where no endpoint policy holds.",
        remedy="Declare an ec2.VpcEndpoint for the service.",
        types=(VPC,),
        check=_endpoints_present,
        severity=Severity.MEDIUM,
        scope="stack",
        controls=("EC2.10", "EC2.55", "EC2.56"),
        parameters={
            "services": {
                "type": "array",
                "items": {"type": "string"},
                "default": _SERVICES,
                "description": "last parts of the endpoint services' names",
            }
        },
    ),
    Rule(
        id="endpoint-policy-narrow",
        title="VPC endpoints carry a policy that names who may pass",
        reason="Through an open endpoint, stolen credentials of any account carry data out.",
        remedy="Set a policy with a condition such as aws:PrincipalAccount or aws:ResourceAccount.",
        types=(VPC_ENDPOINT,),
        check=_endpoint_policy,
        severity=Severity.MEDIUM,
    ),
    Rule(
        id="lb-two-zones",
        title="Load balancers stand in two zones or more",
        reason="With one zone, its failure is an outage.",
        remedy="Name subnets of several zones.",
        types=("aws:lb/loadBalancer:LoadBalancer",),
        check=_load_balancer_zones,
        severity=Severity.MEDIUM,
        scope="stack",
        controls=("ELB.13",),
    ),
    Rule(
        id="data-subnets-two-zones",
        title="Subnet groups of databases and caches span two zones or more",
        reason="A standby needs another zone to stand in.",
        remedy="Name subnets of several zones.",
        types=(DATABASE_SUBNETS, CACHE_SUBNETS),
        check=_subnet_group_zones,
        severity=Severity.MEDIUM,
        scope="stack",
    ),
    _private("eks-nodes-private", "Nodes", NODE_GROUP, Severity.HIGH, "C-0229", "CIS-EKS 5.4.3"),
    _private("rds-subnets-private", "Databases", DATABASE_SUBNETS, Severity.HIGH, "RDS.46"),
    _private("elasticache-subnets-private", "Caches", CACHE_SUBNETS, Severity.HIGH),
)
