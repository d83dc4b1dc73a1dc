"""ElastiCache for Valkey: rate limits, leases and caches that both services share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from app.contract import SERVICES
from infra.components.alarms import AlarmSpec, alarms
from infra.components.log_group import log_group
from infra.tags import Tags

PORT: Final = 6379
_FAMILY: Final = "valkey8"
_ENGINE_VERSION: Final = "8.1"


@dataclass(frozen=True)
class CacheArgs:
    """What the cache needs to know."""

    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    node_type: str
    replicas: int
    """Replicas behind the primary; at least one, or there is nothing to fail over to."""
    snapshot_retention_days: int
    protect: bool
    key_arn: pulumi.Input[str]
    logs_key_arn: pulumi.Input[str]
    log_retention_days: int
    topic_arn: pulumi.Input[str]
    tags: Tags


class Cache(pulumi.ComponentResource):
    """Valkey replication group over zones: TLS required, encrypted at rest, one IAM-authenticated user a service.

    No password exists: a first ``auth_token`` under ROTATE would leave password-less access open
    (terraform-provider-aws#33439), and IAM tokens expire by themselves.
    """

    security_group_id: pulumi.Output[str]
    replication_group_id: pulumi.Output[str]
    primary_endpoint: pulumi.Output[str]
    arn: pulumi.Output[str]
    user_arns: Mapping[str, pulumi.Output[str]]
    """User of each service, by service name; IAM policies name them to let a pod connect."""

    def __init__(self, name: str, args: CacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Cache", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        group = aws.ec2.SecurityGroup(
            f"{name}-access",
            description="Valkey",
            vpc_id=args.vpc_id,
            tags=args.tags.named("cache"),
            opts=self._child,
        )
        self.security_group_id = group.id
        replication_group = self._replication_group(self._user_group())
        for index in range(1, args.replicas + 2):
            alarms(
                f"{name}-{index}",
                CACHE_ALARMS,
                dimensions={"CacheClusterId": pulumi.Output.concat(replication_group.id, f"-{index:03d}")},
                topic_arn=args.topic_arn,
                tags=args.tags,
                opts=self._child,
            )
        self.arn, self.replication_group_id = replication_group.arn, replication_group.id
        self.primary_endpoint = replication_group.primary_endpoint_address
        self.register_outputs({"primaryEndpoint": self.primary_endpoint})

    def _user_group(self) -> aws.elasticache.UserGroup:
        """A user for each service, confined to its keys; the engine's own ``default`` user can do nothing."""
        tags = self._args.tags
        prefix = f"{tags.project}-{tags.stack}"
        default = aws.elasticache.User(
            f"{self._name}-default",
            user_id=f"{prefix}-default",
            user_name="default",
            engine="valkey",
            access_string="off ~keys* -@all",
            authentication_mode=aws.elasticache.UserAuthenticationModeArgs(type="no-password-required"),
            tags=tags.named("cache-default"),
            opts=self._child,
        )
        users = {
            contract.service.value: aws.elasticache.User(
                f"{self._name}-{contract.service}",
                # IAM authentication wants the same id and name.
                user_id=f"{prefix}-{contract.service}",
                user_name=f"{prefix}-{contract.service}",
                engine="valkey",
                access_string=f"on ~{contract.service}:* ~grandmodel:* &* -@all +@read +@write +@scripting "
                "+@connection +@pubsub +@transaction +info -@dangerous",
                authentication_mode=aws.elasticache.UserAuthenticationModeArgs(type="iam"),
                tags=tags.named(f"cache-{contract.service}"),
                opts=self._child,
            )
            for contract in SERVICES
        }
        self.user_arns = {service: user.arn for service, user in users.items()}
        return aws.elasticache.UserGroup(
            f"{self._name}-users",
            user_group_id=f"{prefix}-users",
            engine="valkey",
            user_ids=[default.user_id, *(user.user_id for user in users.values())],
            tags=tags.named("cache-users"),
            opts=self._child,
        )

    def _replication_group(self, users: aws.elasticache.UserGroup) -> aws.elasticache.ReplicationGroup:
        args, tags = self._args, self._args.tags
        subnets = aws.elasticache.SubnetGroup(
            f"{self._name}-subnets",
            description="Cache tier",
            subnet_ids=list(args.subnet_ids),
            tags=tags.named("cache-subnets"),
            opts=self._child,
        )
        parameters = aws.elasticache.ParameterGroup(
            f"{self._name}-parameters",
            description="Least recently used keys go first; leases carry a time to live",
            family=_FAMILY,
            parameters=[aws.elasticache.ParameterGroupParameterArgs(name="maxmemory-policy", value="volatile-lru")],
            tags=tags.named("cache-parameters"),
            opts=self._child,
        )
        slow_log = log_group(
            f"{self._name}-slow-log",
            path=f"/grandmodel/{tags.stack}/cache/slow-log",
            key_arn=args.logs_key_arn,
            retention_days=args.log_retention_days,
            tags=tags,
            opts=self._child,
        )
        return aws.elasticache.ReplicationGroup(
            f"{self._name}-valkey",
            description=f"{tags.project} {tags.stack}",
            engine="valkey",
            engine_version=_ENGINE_VERSION,
            node_type=args.node_type,
            port=PORT,
            num_cache_clusters=args.replicas + 1,
            multi_az_enabled=True,
            automatic_failover_enabled=True,
            subnet_group_name=subnets.name,
            parameter_group_name=parameters.name,
            security_group_ids=[self.security_group_id],
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            at_rest_encryption_enabled=True,
            kms_key_id=args.key_arn,
            user_group_ids=[users.user_group_id],
            snapshot_retention_limit=args.snapshot_retention_days,
            snapshot_window="01:00-02:00",
            maintenance_window="sun:04:30-sun:05:30",
            auto_minor_version_upgrade=True,
            apply_immediately=False,
            notification_topic_arn=args.topic_arn,
            log_delivery_configurations=[
                aws.elasticache.ReplicationGroupLogDeliveryConfigurationArgs(
                    destination=slow_log.name,
                    destination_type="cloudwatch-logs",
                    log_format="json",
                    log_type="slow-log",
                )
            ],
            tags=tags.named("cache"),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )


_METRICS: Final = "AWS/ElastiCache"
CACHE_ALARMS: Final = (
    AlarmSpec(
        "cpu",
        _METRICS,
        "EngineCPUUtilization",
        80,
        "cache-cpu",
        "Cache engine above 80 % CPU for 15 minutes",
        periods=3,
    ),
    AlarmSpec(
        "memory",
        _METRICS,
        "DatabaseMemoryUsagePercentage",
        80,
        "cache-memory",
        "Cache uses more than 80 % of its memory",
    ),
    AlarmSpec("evictions", _METRICS, "Evictions", 0, "cache-memory", "Cache evicts keys", statistic="Sum"),
    AlarmSpec(
        "replication-lag",
        _METRICS,
        "ReplicationLag",
        5,
        "cache-replication",
        "Replica is more than 5 s behind",
        periods=2,
    ),
)
