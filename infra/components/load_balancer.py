"""The one way in: a network load balancer with TLS listeners, its name and its certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pulumi
import pulumi_aws as aws

from app.contract import READY_PATH, STRATEGIC, TACTICAL
from infra.components.alarms import AlarmSpec, alarms
from infra.tags import Tags

TLS_POLICY: Final = "ELBSecurityPolicy-TLS13-1-3-2021-06"
"""TLS 1.3 only. The provider's default would be ELBSecurityPolicy-2016-08."""

LEAVING_SECONDS: Final = 130
"""How long the balancer may send new connections to a pod that it was told to forget.

Two minutes for targets by address (kubernetes-sigs/aws-load-balancer-controller#2366), and a little.
"""
DEREGISTRATION_DELAY_SECONDS: Final = 240
GATEWAY_PORT: Final = 8443
"""Port on which the gateway's pods take TLS."""


class Entry(StrEnum):
    """The ways through the load balancer."""

    GATEWAY = "gateway"
    STRATEGIC = "strategic"
    TACTICAL = "tactical"


@dataclass(frozen=True)
class EntrySpec:
    """A listener's port and the port of the pods behind it."""

    entry: Entry
    listener_port: int
    target_port: int
    source_ranges: Sequence[str]


@dataclass(frozen=True)
class LoadBalancerArgs:
    """What the load balancer needs to know."""

    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    domain: str
    hosted_zone_id: str
    public_source_ranges: Sequence[str]
    trusted_source_ranges: Sequence[str]
    access_log_bucket: pulumi.Input[str]
    access_log_ready: Sequence[pulumi.Resource]
    """What must exist before logs can be delivered: the bucket's policy."""
    deletion_protection: bool
    topic_arn: pulumi.Input[str]
    tags: Tags


class LoadBalancer(pulumi.ComponentResource):
    """NLB with TLS 1.3 listeners: 443 for the public gateway, 8000 and 8001 for the services' trusted clients.

    Pods join the target groups by TargetGroupBinding; the balancer itself is never a controller's (pulumi-eks#1226).
    """

    security_group_id: pulumi.Output[str]
    target_group_arns: Mapping[Entry, pulumi.Output[str]]
    target_ports: Mapping[Entry, int]
    dns_name: pulumi.Output[str]
    arn: pulumi.Output[str]
    certificate_arn: pulumi.Output[str]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:LoadBalancer", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        entries = (
            EntrySpec(Entry.GATEWAY, 443, GATEWAY_PORT, args.public_source_ranges),
            EntrySpec(Entry.STRATEGIC, STRATEGIC.port, STRATEGIC.port, args.trusted_source_ranges),
            EntrySpec(Entry.TACTICAL, TACTICAL.port, TACTICAL.port, args.trusted_source_ranges),
        )
        self.security_group_id = self._security_group(entries)
        balancer = self._balancer()
        self.certificate_arn = self._certificate()
        self.target_ports = {spec.entry: spec.target_port for spec in entries}
        self.target_group_arns = {spec.entry: self._listener(balancer, spec) for spec in entries}
        self._alias(balancer)
        self.dns_name, self.arn = balancer.dns_name, balancer.arn
        self.register_outputs({"dnsName": self.dns_name})

    def _security_group(self, entries: Sequence[EntrySpec]) -> pulumi.Output[str]:
        """Attached at creation: an NLB born without a security group never gets one (terraform-provider-aws#33813)."""
        group = aws.ec2.SecurityGroup(
            f"{self._name}-entry",
            description="Network load balancer: the only way in",
            vpc_id=self._args.vpc_id,
            tags=self._args.tags.named("load-balancer"),
            opts=self._child,
        )
        for spec in entries:
            for source in spec.source_ranges:
                aws.vpc.SecurityGroupIngressRule(
                    f"{self._name}-{spec.entry}-from-{source.replace('/', '-')}",
                    security_group_id=group.id,
                    description=f"{spec.entry} from {source}",
                    cidr_ipv4=source,
                    ip_protocol="tcp",
                    from_port=spec.listener_port,
                    to_port=spec.listener_port,
                    tags=self._args.tags.named(f"{spec.entry}-ingress"),
                    opts=self._child,
                )
        return group.id

    def _balancer(self) -> aws.lb.LoadBalancer:
        args = self._args
        balancer = aws.lb.LoadBalancer(
            f"{self._name}-nlb",
            load_balancer_type="network",
            internal=False,
            security_groups=[self.security_group_id],
            subnets=list(args.subnet_ids),
            enable_cross_zone_load_balancing=True,
            enable_deletion_protection=args.deletion_protection,
            access_logs=aws.lb.LoadBalancerAccessLogsArgs(bucket=args.access_log_bucket, enabled=True, prefix="nlb"),
            tags=args.tags.named("nlb"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.access_log_ready)),
        )
        alarms(
            self._name,
            [
                AlarmSpec(
                    "resets",
                    namespace="AWS/NetworkELB",
                    metric="TCP_Target_Reset_Count",
                    statistic="Sum",
                    threshold=100,
                    runbook="load-balancer-resets",
                    summary="Targets reset more than 100 connections in 5 minutes",
                ),
            ],
            dimensions={"LoadBalancer": balancer.arn_suffix},
            topic_arn=args.topic_arn,
            tags=args.tags,
            opts=self._child,
        )
        self._balancer_suffix = balancer.arn_suffix
        return balancer

    def _certificate(self) -> pulumi.Output[str]:
        """Certificate of the domain, validated by a record in its own zone."""
        args = self._args
        certificate = aws.acm.Certificate(
            f"{self._name}-certificate",
            domain_name=args.domain,
            validation_method="DNS",
            key_algorithm="EC_prime256v1",
            options=aws.acm.CertificateOptionsArgs(certificate_transparency_logging_preference="ENABLED"),
            tags=args.tags.named("certificate"),
            opts=self._child,
        )
        challenge = certificate.domain_validation_options[0]
        record = aws.route53.Record(
            f"{self._name}-certificate-validation",
            zone_id=args.hosted_zone_id,
            name=challenge.resource_record_name,
            type=challenge.resource_record_type,
            records=[challenge.resource_record_value],
            ttl=60,
            allow_overwrite=True,
            opts=self._child,
        )
        validation = aws.acm.CertificateValidation(
            f"{self._name}-certificate",
            certificate_arn=certificate.arn,
            validation_record_fqdns=[record.fqdn],
            opts=self._child,
        )
        return validation.certificate_arn

    def _listener(self, balancer: aws.lb.LoadBalancer, spec: EntrySpec) -> pulumi.Output[str]:
        """A TLS listener and its target group, TLS behind it as well; returns the target group's ARN."""
        args = self._args
        target_group = aws.lb.TargetGroup(
            f"{self._name}-{spec.entry}",
            vpc_id=args.vpc_id,
            target_type="ip",
            protocol="TLS",
            port=spec.target_port,
            # The gateway limits by client address and the services audit it; pods reach each other by Service, never
            # through the balancer, so the hairpin that client addresses forbid does not occur.
            preserve_client_ip="true",
            # Longer than a leaving pod lives: the pod ends its connections, the balancer cuts none.
            deregistration_delay=DEREGISTRATION_DELAY_SECONDS,
            connection_termination=True,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                enabled=True,
                protocol="HTTPS",
                path=READY_PATH,
                port="traffic-port",
                matcher="200",
                interval=10,
                timeout=6,
                healthy_threshold=2,
                unhealthy_threshold=2,
            ),
            tags=args.tags.named(f"{spec.entry}-targets"),
            opts=self._child,
        )
        aws.lb.Listener(
            f"{self._name}-{spec.entry}",
            load_balancer_arn=balancer.arn,
            port=spec.listener_port,
            protocol="TLS",
            ssl_policy=TLS_POLICY,
            certificate_arn=self.certificate_arn,
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=target_group.arn),
            ],
            tags=args.tags.named(f"{spec.entry}-listener"),
            opts=self._child,
        )
        alarms(
            f"{self._name}-{spec.entry}",
            [
                AlarmSpec(
                    "unhealthy",
                    namespace="AWS/NetworkELB",
                    metric="HealthyHostCount",
                    statistic="Minimum",
                    comparison="LessThanThreshold",
                    threshold=1,
                    runbook="targets-unhealthy",
                    summary=f"No healthy target behind {spec.entry}",
                    missing="breaching",
                ),
            ],
            dimensions={"LoadBalancer": self._balancer_suffix, "TargetGroup": target_group.arn_suffix},
            topic_arn=args.topic_arn,
            tags=args.tags,
            opts=self._child,
        )
        return target_group.arn

    def _alias(self, balancer: aws.lb.LoadBalancer) -> None:
        aws.route53.Record(
            f"{self._name}-alias",
            zone_id=self._args.hosted_zone_id,
            name=self._args.domain,
            type="A",
            aliases=[
                aws.route53.RecordAliasArgs(
                    name=balancer.dns_name, zone_id=balancer.zone_id, evaluate_target_health=True
                )
            ],
            opts=self._child,
        )
