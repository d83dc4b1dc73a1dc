"""RDS PostgreSQL with pgvector, for both services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from infra.components.alarms import AlarmSpec, alarms
from infra.components.iam import Statement, policy_document
from infra.components.log_group import log_group
from infra.components.postgresql_parameters import POSTGRESQL_PARAMETERS
from infra.tags import Tags

ENGINE_MAJOR_VERSION: Final = "17"
"""Major version only: minor ones are AWS's to choose (terraform-provider-aws#40089)."""
PORT: Final = 5432
MASTER_USERNAME: Final = "grandmodel_owner"
_LOG_EXPORTS: Final = ("postgresql", "upgrade")
_GIB: Final = 1024**3


@dataclass(frozen=True)
class DatabaseArgs:
    """What the database needs to know."""

    account_id: str
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    instance_class: str
    storage_gib: int
    multi_az: bool
    backup_retention_days: int
    performance_insights_days: int
    deletion_protection: bool
    protect: bool
    storage_key_arn: pulumi.Input[str]
    secrets_key_arn: pulumi.Input[str]
    logs_key_arn: pulumi.Input[str]
    log_retention_days: int
    topic_arn: pulumi.Input[str]
    tags: Tags


class Database(pulumi.ComponentResource):
    """PostgreSQL on gp3 under a CMK; TLS is forced, the master password is RDS's own secret, pods sign in by IAM."""

    security_group_id: pulumi.Output[str]
    arn: pulumi.Output[str]
    identifier: pulumi.Output[str]
    address: pulumi.Output[str]
    resource_id: pulumi.Output[str]
    """What IAM policies name when they let a role sign in (``rds-db:connect``)."""
    engine_version: pulumi.Output[str]
    master_secret_arn: pulumi.Output[str]

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Database", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        group = aws.ec2.SecurityGroup(
            f"{name}-access",
            description="PostgreSQL",
            vpc_id=args.vpc_id,
            tags=args.tags.named("database"),
            opts=self._child,
        )
        self.security_group_id = group.id
        # The name is known before the instance, so that its log groups can exist before RDS makes unencrypted ones; the
        # suffix keeps a recreated instance from colliding with its predecessor's name and final snapshot.
        suffix = random.RandomId(f"{name}-suffix", byte_length=3, opts=self._child)
        identifier = pulumi.Output.concat(f"{args.tags.project}-{args.tags.stack}-", suffix.hex)
        logs = [
            log_group(
                f"{name}-{export}-logs",
                path=pulumi.Output.concat("/aws/rds/instance/", identifier, f"/{export}"),
                key_arn=args.logs_key_arn,
                retention_days=args.log_retention_days,
                tags=args.tags,
                opts=self._child,
            )
            for export in _LOG_EXPORTS
        ]
        instance = self._instance(identifier, logs)
        self._watch(instance)
        self.arn, self.identifier, self.address = instance.arn, instance.identifier, instance.address
        self.resource_id, self.engine_version = instance.resource_id, instance.engine_version_actual
        self.master_secret_arn = instance.master_user_secrets[0].secret_arn.apply(lambda arn: arn or "")
        self.register_outputs({"address": self.address})

    def _instance(self, identifier: pulumi.Output[str], logs: Sequence[pulumi.Resource]) -> aws.rds.Instance:
        args, tags = self._args, self._args.tags
        subnets = aws.rds.SubnetGroup(
            f"{self._name}-subnets",
            description="Database tier",
            subnet_ids=list(args.subnet_ids),
            tags=tags.named("database-subnets"),
            opts=self._child,
        )
        parameters = aws.rds.ParameterGroup(
            f"{self._name}-parameters",
            description="TLS forced; memory and parallelism as sized",
            family=f"postgres{ENGINE_MAJOR_VERSION}",
            parameters=[
                aws.rds.ParameterGroupParameterArgs(
                    name=parameter.name, value=parameter.value, apply_method=parameter.apply_method
                )
                for parameter in POSTGRESQL_PARAMETERS
            ],
            tags=tags.named("database-parameters"),
            opts=self._child,
        )
        return aws.rds.Instance(
            f"{self._name}-postgresql",
            identifier=identifier,
            engine="postgres",
            engine_version=ENGINE_MAJOR_VERSION,
            instance_class=args.instance_class,
            allocated_storage=args.storage_gib,
            max_allocated_storage=args.storage_gib * 4,
            storage_type="gp3",
            storage_encrypted=True,
            kms_key_id=args.storage_key_arn,
            multi_az=args.multi_az,
            db_subnet_group_name=subnets.name,
            parameter_group_name=parameters.name,
            vpc_security_group_ids=[self.security_group_id],
            publicly_accessible=False,
            port=PORT,
            ca_cert_identifier="rds-ca-rsa2048-g1",
            username=MASTER_USERNAME,
            manage_master_user_password=True,
            master_user_secret_kms_key_id=args.secrets_key_arn,
            iam_database_authentication_enabled=True,
            backup_retention_period=args.backup_retention_days,
            backup_window="02:00-03:00",
            maintenance_window="sun:03:30-sun:04:30",
            copy_tags_to_snapshot=True,
            delete_automated_backups=False,
            skip_final_snapshot=False,
            final_snapshot_identifier=pulumi.Output.concat(identifier, "-final"),
            deletion_protection=args.deletion_protection,
            auto_minor_version_upgrade=True,
            allow_major_version_upgrade=False,
            apply_immediately=False,
            enabled_cloudwatch_logs_exports=list(_LOG_EXPORTS),
            performance_insights_enabled=True,
            performance_insights_kms_key_id=args.storage_key_arn,
            performance_insights_retention_period=args.performance_insights_days,
            monitoring_interval=60,
            monitoring_role_arn=self._monitoring_role().arn,
            tags=tags.named("database", backup="daily"),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect, depends_on=list(logs)),
        )

    def _monitoring_role(self) -> aws.iam.Role:
        role = aws.iam.Role(
            f"{self._name}-monitoring",
            description="RDS enhanced monitoring",
            assume_role_policy=policy_document(
                Statement(
                    "AssumeByMonitoring",
                    actions=["sts:AssumeRole"],
                    principals={"Service": ["monitoring.rds.amazonaws.com"]},
                    conditions={"StringEquals": {"aws:SourceAccount": self._args.account_id}},
                )
            ),
            tags=self._args.tags.named("database-monitoring"),
            opts=self._child,
        )
        aws.iam.RolePolicyAttachment(
            f"{self._name}-monitoring",
            role=role.name,
            policy_arn="arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole",
            opts=self._child,
        )
        return role

    def _watch(self, instance: aws.rds.Instance) -> None:
        args = self._args
        alarms(
            self._name,
            database_alarms(args.storage_gib),
            dimensions={"DBInstanceIdentifier": instance.identifier},
            topic_arn=args.topic_arn,
            tags=args.tags,
            opts=self._child,
        )
        aws.rds.EventSubscription(
            f"{self._name}-events",
            sns_topic=args.topic_arn,
            source_type="db-instance",
            source_ids=[instance.identifier],
            event_categories=["availability", "configuration change", "failover", "failure", "low storage", "recovery"],
            tags=args.tags.named("database-events"),
            opts=self._child,
        )


def database_alarms(storage_gib: int) -> Sequence[AlarmSpec]:
    """Alarms of an instance with ``storage_gib`` GiB allocated."""
    rds = "AWS/RDS"
    below = "LessThanThreshold"
    return (
        AlarmSpec(
            "cpu", rds, "CPUUtilization", 80, "database-cpu", "Database CPU above 80 % for 15 minutes", periods=3
        ),
        AlarmSpec(
            "memory",
            rds,
            "FreeableMemory",
            _GIB // 2,
            "database-memory",
            "Database has less than 512 MiB of memory left",
            comparison=below,
        ),
        AlarmSpec(
            "storage",
            rds,
            "FreeStorageSpace",
            storage_gib * _GIB // 10,
            "database-storage",
            "Database has less than a tenth of its storage left",
            comparison=below,
        ),
        AlarmSpec("connections", rds, "DatabaseConnections", 400, "database-connections", "More than 400 connections"),
        AlarmSpec(
            "write-latency",
            rds,
            "WriteLatency",
            0.02,
            "database-latency",
            "Writes take longer than 20 ms for 15 minutes: commits, hence requests, wait",
            periods=3,
        ),
        AlarmSpec("queue", rds, "DiskQueueDepth", 64, "database-latency", "More than 64 I/O requests queue", periods=3),
    )
