"""Security-group rules in one form, however the program wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from policy.model import Estate, Node, NotKnown, Resource
from policy.rules.types import EGRESS_RULE, INGRESS_RULE, SECURITY_GROUP, SECURITY_GROUP_RULE

ALL_PORTS = (0, 65535)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic that one security-group rule admits or lets out."""

    node: Node
    first_port: int
    last_port: int
    cidrs: tuple[str, ...]
    all_protocols: bool

    @property
    def all_ports(self) -> bool:
        """Whether every port is meant."""
        return self.all_protocols or (self.first_port, self.last_port) == ALL_PORTS

    @property
    def ports(self) -> str:
        """The ports, for a person."""
        if self.all_ports:
            return "all ports"
        if self.first_port == self.last_port:
            return f"port {self.first_port}"
        return f"ports {self.first_port}-{self.last_port}"

    def within(self, ports: set[int]) -> bool:
        """Whether it concerns none but ``ports``."""
        return (
            not self.all_ports
            and self.last_port - self.first_port < 100
            and ports.issuperset(range(self.first_port, self.last_port + 1))
        )


def traffic(resource: Resource, direction: str) -> Iterator[Traffic]:
    """The traffic of ``direction`` (``ingress`` or ``egress``) that ``resource`` declares.

    Raises:
        NotKnown: a port, protocol or range is unknown.
    """
    node = resource.node
    if resource.type in (INGRESS_RULE, EGRESS_RULE):
        if (resource.type == INGRESS_RULE) == (direction == "ingress"):
            yield _traffic(node, "ipProtocol", ("cidrIpv4", "cidrIpv6"))
    elif resource.type == SECURITY_GROUP_RULE:
        if node.text("type") == direction:
            yield _traffic(node, "protocol", ("cidrBlocks", "ipv6CidrBlocks"))
    elif resource.type == SECURITY_GROUP:
        for item in node.nodes(direction):
            yield _traffic(item, "protocol", ("cidrBlocks", "ipv6CidrBlocks"))


def _traffic(node: Node, protocol_path: str, cidr_paths: tuple[str, ...]) -> Traffic:
    cidrs = tuple(cidr for path in cidr_paths for cidr in node.texts(path))
    protocol = str(node.read(protocol_path))
    if protocol in {"-1", "all"}:
        return Traffic(node, *ALL_PORTS, cidrs, all_protocols=True)
    first, last = node.number("fromPort"), node.number("toPort")
    if first is None or last is None:
        return Traffic(node, *ALL_PORTS, cidrs, all_protocols=False)
    return Traffic(node, int(first), int(last), cidrs, all_protocols=False)


def is_world(cidr: str) -> bool:
    """Whether a range is the internet, or so wide that it might as well be (shorter than /8, or /16 in IPv6).

    Raises:
        NotKnown: it is not a range.
    """
    network = parse(cidr)
    return network.prefixlen < (8 if network.version == 4 else 16)


def parse(cidr: str) -> IPv4Network | IPv6Network:
    """The network of ``cidr``.

    Raises:
        NotKnown: it is not a range.
    """
    try:
        return ip_network(cidr, strict=False)
    except ValueError:
        raise NotKnown("a CIDR", "is not a range of addresses") from None


def rules_of(estate: Estate, group: Resource, direction: str) -> Iterator[tuple[Resource, Traffic]]:
    """Every rule of ``direction`` on the security group (or cluster) ``group``, with the resource that declares it."""
    owners = [group, *estate.referrers(group, INGRESS_RULE, EGRESS_RULE, SECURITY_GROUP_RULE)]
    for owner in owners:
        if owner is group and group.type != SECURITY_GROUP:
            continue
        if owner is group or estate.refers(owner, "securityGroupId", group):
            for item in traffic(owner, direction):
                yield owner, item


def sources(estate: Estate, owner: Resource) -> list[Resource]:
    """The security groups that a rule resource names as the other side."""
    path = "referencedSecurityGroupId" if owner.type in (INGRESS_RULE, EGRESS_RULE) else "sourceSecurityGroupId"
    return estate.links(owner, path, SECURITY_GROUP)
