"""What the internet can reach: security groups, network ACLs, subnets, public addresses."""

from __future__ import annotations

from collections.abc import Iterator

from policy.checks import is_false, is_true
from policy.rule import Case, Finding, Level, NotApplicable, Rule, Severity, Violation
from policy.rules.traffic import Traffic, is_world, parse, rules_of, sources, traffic
from policy.rules.types import (
    CLUSTER,
    EGRESS_RULE,
    INGRESS_RULE,
    LAUNCH_TEMPLATE,
    LOAD_BALANCER,
    NETWORK_ACL,
    NETWORK_ACL_RULE,
    SECURITY_GROUP,
    SECURITY_GROUP_RULE,
    SUBNET,
    VPC_ENDPOINT,
    VPC_ENDPOINT_SERVICE,
)

_NAMES = {
    20: "FTP",
    21: "FTP",
    22: "SSH",
    23: "Telnet",
    25: "SMTP",
    80: "plain HTTP",
    110: "POP3",
    135: "RPC",
    143: "IMAP",
    445: "SMB",
    1433: "SQL Server",
    3306: "MySQL",
    3389: "RDP",
    5432: "PostgreSQL",
    5500: "FCP",
    5601: "Kibana",
    6379: "Valkey",
    8080: "plain HTTP",
    8088: "plain HTTP",
    8888: "plain HTTP",
    9200: "Elasticsearch",
}
_INGRESS = (INGRESS_RULE, SECURITY_GROUP_RULE, SECURITY_GROUP)
_PORTS = {"type": "array", "items": {"type": "integer"}}
_RANGES = {"type": "array", "items": {"type": "string"}}


def _no_world_ingress(case: Case) -> Iterator[Finding]:
    allowed = {int(port) for port in case.parameters["public_ports"]}
    for item in traffic(case.resource, "ingress"):
        if any(is_world(cidr) for cidr in item.cidrs) and not item.within(allowed):
            yield Violation(f"{item.ports}{_risk(item)} open to the internet")


def _risk(item: Traffic) -> str:
    if item.all_ports:
        return ""
    named = sorted({name for port, name in _NAMES.items() if item.first_port <= port <= item.last_port})
    return f" ({', '.join(named)})" if named else ""


def _world_only_at_load_balancer(case: Case) -> Iterator[Finding]:
    world = [
        owner
        for owner, item in rules_of(case.estate, case.resource, "ingress")
        if any(is_world(cidr) for cidr in item.cidrs)
    ]
    if not world:
        return
    users = case.estate.referrers(case.resource)
    if not any(user.type == LOAD_BALANCER for user in users):
        for owner in world:
            yield Violation(
                f"the internet reaches security group {case.resource.name}, which is no load balancer's", owner.urn
            )


def _api_ports_trusted(case: Case) -> Iterator[Finding]:
    api_ports = [int(port) for port in case.parameters["api_ports"]]
    trusted = [parse(text) for text in case.parameters["trusted_ranges"]]
    for item in traffic(case.resource, "ingress"):
        if not any(item.first_port <= port <= item.last_port for port in api_ports) or item.all_ports:
            continue
        for cidr in item.cidrs:
            network = parse(cidr)
            if not any(network.version == t.version and network.subnet_of(t) for t in trusted):  # type: ignore[arg-type]
                yield Violation(f"{item.ports} admits {cidr}, which is in none of the trusted ranges")


def _egress_restricted(case: Case) -> Iterator[Finding]:
    for item in traffic(case.resource, "egress"):
        if item.all_ports and any(is_world(cidr) for cidr in item.cidrs):
            yield Violation("all ports may leave for the internet")


def _described(case: Case) -> Iterator[Finding]:
    node = case.node
    if case.resource.type == SECURITY_GROUP:
        if (node.text("description") or "") in {"", "Managed by Pulumi", "Managed by Terraform"}:
            yield Violation("the group has no description")
        for direction in ("ingress", "egress"):
            for item in node.nodes(direction):
                if not item.text("description"):
                    yield Violation(f"{item.path} has no description")
    elif not node.text("description"):
        yield Violation("the rule has no description")


def _group_used(case: Case) -> Iterator[Finding]:
    rules = {INGRESS_RULE, EGRESS_RULE, SECURITY_GROUP_RULE}
    if not any(
        user.type not in rules and user.type.startswith("aws:") for user in case.estate.referrers(case.resource)
    ):
        yield Violation("nothing uses the group")


def _rules_not_mixed(case: Case) -> Iterator[Finding]:
    inline = [direction for direction in ("ingress", "egress") if case.node.has(direction)]
    rules = case.estate.referrers(case.resource, INGRESS_RULE, EGRESS_RULE, SECURITY_GROUP_RULE)
    if inline and any(case.estate.refers(rule, "securityGroupId", case.resource) for rule in rules):
        yield Violation(f"inline {' and '.join(inline)} beside rule resources: each update removes the other's")


def _acl_closed(case: Case) -> Iterator[Finding]:
    node = case.node
    if case.resource.type == NETWORK_ACL_RULE:
        if node.flag("egress") or node.text("ruleAction") != "allow":
            return
        entries = [(node, "protocol")]
    else:
        entries = [(item, "protocol") for item in node.nodes("ingress") if item.text("action") == "allow"]
    for item, protocol in entries:
        cidrs = [cidr for path in ("cidrBlock", "ipv6CidrBlock") for cidr in item.texts(path) if cidr]
        if not any(is_world(cidr) for cidr in cidrs):
            continue
        first, last = item.number("fromPort") or 0, item.number("toPort") or 0
        every = str(item.read(protocol)) in {"-1", "all"}
        for port in (20, 21, 22, 3389):
            if every or first <= port <= last:
                yield Violation(f"{'all ports' if every else f'port {port} ({_NAMES[port]})'} open to the internet")
                break


def _acl_attached(case: Case) -> Iterator[Finding]:
    users = case.estate.referrers(case.resource, "aws:ec2/networkAclAssociation:NetworkAclAssociation")
    if not case.node.has("subnetIds") and not users:
        yield Violation("the network ACL stands on no subnet")


def _on_nodes(case: Case) -> bool:
    targets = case.estate.links(case.resource, "securityGroupId", SECURITY_GROUP, CLUSTER)
    for target in targets:
        if target.type == CLUSTER:
            return True
        if any(user.type == LAUNCH_TEMPLATE for user in case.estate.referrers(target)):
            return True
    return False


def _nodes_admit_groups_only(case: Case) -> Iterator[Finding]:
    if not _on_nodes(case):
        yield NotApplicable("not on a node's security group")
        return
    for item in traffic(case.resource, "ingress"):
        if item.cidrs:
            yield Violation(f"nodes admit {', '.join(item.cidrs)} on {item.ports}, not a security group")


def _targets_admit_load_balancer(case: Case) -> Iterator[Finding]:
    """The load balancer's group is a source of some rule on the nodes, and no public group other than its own is."""
    groups = case.estate.links(case.resource, "securityGroups", SECURITY_GROUP)
    if not groups:
        yield Violation("securityGroups is not set: targets cannot tell the load balancer from others")
        return
    for group in groups:
        rules = case.estate.referrers(group, INGRESS_RULE, SECURITY_GROUP_RULE)
        if not any(group in sources(case.estate, rule) for rule in rules):
            yield Violation(f"no target admits the load balancer's group {group.name}")


def _endpoint_ingress(case: Case) -> Iterator[Finding]:
    if (case.node.text("vpcEndpointType") or "Gateway") != "Interface":
        yield NotApplicable("a gateway endpoint has no security group")
        return
    groups = case.estate.links(case.resource, "securityGroupIds", SECURITY_GROUP)
    if not groups:
        yield Violation("securityGroupIds is not set: the VPC's default group applies")
    for group in groups:
        for owner, item in rules_of(case.estate, group, "ingress"):
            if item.cidrs:
                yield Violation(f"{group.name} admits a CIDR on {item.ports}, not the groups that call AWS", owner.urn)
            elif not item.within({443}):
                yield Violation(f"{group.name} admits {item.ports}; endpoints answer on 443 only", owner.urn)


RULES = (
    Rule(
        id="sg-no-world-ingress",
        title="Security groups admit the internet on public ports only",
        reason="Every other open port is found by scanners within minutes.",
        remedy="Name the source security group, or a narrow CIDR; one rule for each.",
        types=_INGRESS,
        check=_no_world_ingress,
        severity=Severity.CRITICAL,
        controls=(
            "EC2.18",
            "EC2.19",
            "EC2.13",
            "EC2.14",
            "CKV_AWS_24",
            "CKV_AWS_25",
            "CKV_AWS_260",
            "CKV_AWS_277",
            "CIS-AWS 5.2",
            "CIS-AWS 5.3",
            "C-0256",
        ),
        parameters={"public_ports": {**_PORTS, "default": [443], "description": "ports the internet may reach"}},
    ),
    Rule(
        id="sg-world-only-at-load-balancer",
        title="Only load balancers are reached from the internet",
        reason="Whatever else answers the internet has neither the load balancer's TLS policy nor its logs.",
        remedy="Attach the open group to the load balancer only, and admit its group elsewhere.",
        types=(SECURITY_GROUP,),
        check=_world_only_at_load_balancer,
        severity=Severity.HIGH,
        scope="stack",
        controls=("EC2.18", "NSA/CISA network separation"),
    ),
    Rule(
        id="lb-api-ports-trusted",
        title="API ports admit trusted ranges only",
        reason="The API ports bypass the gateway's rate limits; they are for the company's own networks.",
        remedy="Narrow the source ranges to the trusted ones, one ingress rule for each CIDR.",
        types=_INGRESS,
        check=_api_ports_trusted,
        severity=Severity.CRITICAL,
        controls=("EC2.18", "C-0256"),
        parameters={
            "api_ports": {**_PORTS, "default": [8000, 8001], "description": "ports of the services' APIs"},
            "trusted_ranges": {
                **_RANGES,
                "default": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
                "description": "ranges that may reach them",
            },
        },
    ),
    Rule(
        id="sg-egress-restricted",
        title="Nothing may leave for the internet on all ports",
        reason="An intruder's tools call home on whatever port is open.",
        remedy="Let out 443 and 80, and what a named peer needs.",
        types=(EGRESS_RULE, SECURITY_GROUP_RULE, SECURITY_GROUP),
        check=_egress_restricted,
        severity=Severity.LOW,
        level=Level.ADVISORY,
        controls=("CKV_AWS_382",),
    ),
    Rule(
        id="sg-described",
        title="Security groups and their rules say what they are for",
        reason="A rule that nobody can explain is never removed.",
        remedy="Describe the group and each rule.",
        types=(SECURITY_GROUP, INGRESS_RULE, EGRESS_RULE, SECURITY_GROUP_RULE),
        check=_described,
        severity=Severity.LOW,
        controls=("CKV_AWS_23",),
    ),
    Rule(
        id="sg-used",
        title="Every security group is used",
        reason="An unused group is attached by mistake one day, with rules that nobody reviewed for it.",
        remedy="Attach the group or remove it.",
        types=(SECURITY_GROUP,),
        check=_group_used,
        severity=Severity.LOW,
        scope="stack",
        controls=("CKV2_AWS_5",),
    ),
    Rule(
        id="sg-rules-not-mixed",
        title="A security group's rules are inline or resources, never both",
        reason="The provider removes the ones it does not know of at every update (pulumi-aws#2391).",
        remedy="Keep the rule resources and drop the inline rules.",
        types=(SECURITY_GROUP,),
        check=_rules_not_mixed,
        severity=Severity.HIGH,
        scope="stack",
    ),
    Rule(
        id="nacl-closed-to-admin-ports",
        title="Network ACLs do not admit the internet on admin ports",
        reason="The ACL is the second lock behind the security group.",
        remedy="Deny 20, 21, 22 and 3389 from outside, or name the ranges that need them.",
        types=(NETWORK_ACL, NETWORK_ACL_RULE),
        check=_acl_closed,
        severity=Severity.MEDIUM,
        controls=(
            "EC2.21",
            "CKV_AWS_229",
            "CKV_AWS_230",
            "CKV_AWS_231",
            "CKV_AWS_232",
            "CKV_AWS_352",
            "CIS-AWS 5.1",
        ),
    ),
    Rule(
        id="nacl-attached",
        title="Every network ACL stands on a subnet",
        reason="An ACL that nothing uses suggests a protection that is not there.",
        remedy="Give it subnetIds or remove it.",
        types=(NETWORK_ACL,),
        check=_acl_attached,
        severity=Severity.LOW,
        scope="stack",
        controls=("EC2.16", "CKV2_AWS_1"),
    ),
    Rule(
        id="nodes-admit-groups-only",
        title="Nodes admit security groups, never address ranges",
        reason="A range outlives the machine it was opened for.",
        remedy="Name the peer's security group in referencedSecurityGroupId.",
        types=(INGRESS_RULE, SECURITY_GROUP_RULE),
        check=_nodes_admit_groups_only,
        severity=Severity.HIGH,
        scope="stack",
        controls=("NSA/CISA network separation",),
    ),
    Rule(
        id="lb-targets-admit-it",
        title="Targets admit the load balancer by its security group",
        reason=(
            "Targets that admit anything else can be reached around the load balancer; ones that do not admit "
            "it are dead."
        ),
        remedy="Attach a security group to the load balancer and make it the source of the targets' ingress rules.",
        types=(LOAD_BALANCER,),
        check=_targets_admit_load_balancer,
        severity=Severity.HIGH,
        scope="stack",
    ),
    Rule(
        id="endpoint-admits-callers-only",
        title="Interface endpoints admit 443 from security groups only",
        reason="An endpoint open to a range is open to whatever turns up in it.",
        remedy="Admit port 443 from the groups of nodes and functions.",
        types=(VPC_ENDPOINT,),
        check=_endpoint_ingress,
        severity=Severity.MEDIUM,
        scope="stack",
    ),
    Rule(
        id="endpoint-service-acceptance",
        title="Endpoint services accept consumers by hand",
        reason="Otherwise any allowed account connects unseen.",
        remedy="Set acceptanceRequired to true.",
        types=(VPC_ENDPOINT_SERVICE,),
        check=is_true("acceptanceRequired"),
        severity=Severity.LOW,
        controls=("CKV_AWS_123",),
    ),
    Rule(
        id="subnet-no-public-addresses",
        title="Subnets give no public addresses by themselves",
        reason="An instance with a public address is reachable as soon as one security group is wrong.",
        remedy="Set mapPublicIpOnLaunch to false; load balancers and NAT gateways bring their own.",
        types=(SUBNET,),
        check=is_false("mapPublicIpOnLaunch"),
        severity=Severity.MEDIUM,
        controls=("EC2.15", "CKV_AWS_130"),
    ),
)
