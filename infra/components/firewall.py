"""Who may speak to whom: every rule between the estate's security groups, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.tags import Tags

_ANYWHERE: Final = "0.0.0.0/0"


class Group(StrEnum):
    """The estate's security groups."""

    LOAD_BALANCER = "load-balancer"
    CONTROL_PLANE = "control-plane"
    NODES = "nodes"
    ENDPOINTS = "endpoints"
    DATABASE = "database"
    CACHE = "cache"


@dataclass(frozen=True)
class Passage:
    """Traffic that one group may begin towards another; it becomes an egress rule there and an ingress rule here."""

    source: Group
    destination: Group
    first_port: int
    last_port: int
    why: str
    protocol: str = "tcp"


def passages(target_ports: Sequence[int]) -> Sequence[Passage]:
    """All passages; ``target_ports`` are the pods' ports behind the load balancer."""
    nodes, control_plane = Group.NODES, Group.CONTROL_PLANE
    return (
        *(
            Passage(Group.LOAD_BALANCER, nodes, port, port, f"requests and health checks on {port}")
            for port in target_ports
        ),
        Passage(nodes, control_plane, 443, 443, "kubelets and pods call the Kubernetes API"),
        Passage(control_plane, nodes, 443, 443, "webhooks on 443"),
        Passage(control_plane, nodes, 4443, 4443, "aggregated metrics API"),
        Passage(control_plane, nodes, 6443, 6443, "aggregated custom metrics API"),
        Passage(control_plane, nodes, 9443, 9443, "webhooks of controllers"),
        Passage(control_plane, nodes, 10250, 10251, "kubelets: logs, exec, metrics"),
        Passage(nodes, nodes, 0, 65535, "pods speak to each other; NetworkPolicies narrow it down"),
        Passage(nodes, nodes, 53, 53, "names by CoreDNS", protocol="udp"),
        Passage(nodes, Group.ENDPOINTS, 443, 443, "AWS APIs inside the VPC"),
        Passage(nodes, Group.DATABASE, 5432, 5432, "PostgreSQL over TLS"),
        Passage(nodes, Group.CACHE, 6379, 6379, "Valkey over TLS"),
    )


@dataclass(frozen=True)
class FirewallArgs:
    """Every group of the estate, and the ports of the pods behind the load balancer."""

    groups: Mapping[Group, pulumi.Input[str]]
    target_ports: Sequence[int]
    tags: Tags


class Firewall(pulumi.ComponentResource):
    """The rules of :func:`passages`, and the nodes' way out: 443 and 80.

    Standalone rules only: inline ones fight them (pulumi-aws#2391).
    """

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Firewall", name, None, opts)
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        for passage in passages(args.target_ports):
            self._open(name, passage)
        for port in (443, 80):
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-nodes-to-internet-{port}",
                security_group_id=args.groups[Group.NODES],
                description=f"Out to {port}: registries, exchanges, AWS",
                cidr_ipv4=_ANYWHERE,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                tags=args.tags.named(f"nodes-to-internet-{port}"),
                opts=self._child,
            )
        self.register_outputs({})

    def _open(self, name: str, passage: Passage) -> None:
        groups, tags = self._args.groups, self._args.tags
        label = f"{passage.source}-to-{passage.destination}-{passage.protocol}-{passage.first_port}"
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-{label}",
            security_group_id=groups[passage.destination],
            referenced_security_group_id=groups[passage.source],
            description=f"From {passage.source}: {passage.why}",
            ip_protocol=passage.protocol,
            from_port=passage.first_port,
            to_port=passage.last_port,
            tags=tags.named(label),
            opts=self._child,
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-{label}",
            security_group_id=groups[passage.source],
            referenced_security_group_id=groups[passage.destination],
            description=f"To {passage.destination}: {passage.why}",
            ip_protocol=passage.protocol,
            from_port=passage.first_port,
            to_port=passage.last_port,
            tags=tags.named(label),
            opts=self._child,
        )
