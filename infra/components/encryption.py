"""Customer-managed keys: one for each purpose, so that losing or revoking one touches one kind of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, policy_document
from infra.tags import Tags


class Purpose(StrEnum):
    """What a key encrypts."""

    DATABASE = "database"
    CACHE = "cache"
    CLUSTER = "cluster"
    VOLUMES = "volumes"
    LOGS = "logs"
    STORAGE = "storage"
    REGISTRY = "registry"
    SECRETS = "secrets"
    BACKUP = "backup"
    NOTIFICATIONS = "notifications"


_USE: Final = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey")


@dataclass(frozen=True)
class EncryptionArgs:
    """What the keys need to know."""

    region: str
    account_id: str
    deletion_window_days: int
    protect: bool
    tags: Tags


class Encryption(pulumi.ComponentResource):
    """One rotating CMK, with alias, for each :class:`Purpose`; each key's policy names the services that may use it."""

    key_arns: Mapping[Purpose, pulumi.Output[str]]

    def __init__(self, name: str, args: EncryptionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Encryption", name, None, opts)
        self.key_arns = {purpose: self._key(name, purpose, args) for purpose in Purpose}
        self.register_outputs({"keyArns": {purpose.value: arn for purpose, arn in self.key_arns.items()}})

    def _key(self, name: str, purpose: Purpose, args: EncryptionArgs) -> pulumi.Output[str]:
        key = aws.kms.Key(
            f"{name}-{purpose}",
            description=f"{args.tags.project} {args.tags.stack}: {purpose}",
            enable_key_rotation=True,
            is_enabled=True,
            deletion_window_in_days=args.deletion_window_days,
            bypass_policy_lockout_safety_check=False,
            policy=policy_document(*key_statements(purpose, args.region, args.account_id)),
            tags=args.tags.named(f"{purpose}-key"),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        aws.kms.Alias(
            f"{name}-{purpose}",
            name=f"alias/{args.tags.project}/{args.tags.stack}/{purpose}",
            target_key_id=key.id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return key.arn


def key_statements(purpose: Purpose, region: str, account_id: str) -> Sequence[Statement]:
    """Key policy of a purpose: the account administers, the services of :data:`_VIA` use it on the account's behalf.

    Services that act by grants (EBS of node groups) or by themselves (logs, alarms) are named one by one.
    """
    statements = [
        # AWS's own default: without it a key can become unmanageable (kms developer guide, "default key policy").
        Statement(
            "AccountAdministers",
            actions=["kms:*"],
            resources=["*"],
            principals={"AWS": [f"arn:aws:iam::{account_id}:root"]},
        )
    ]
    if via := _VIA.get(purpose):
        statements.append(
            Statement(
                "UseThroughServices",
                actions=[*_USE, "kms:CreateGrant"],
                resources=["*"],
                principals={"AWS": [f"arn:aws:iam::{account_id}:root"]},
                conditions={
                    "StringEquals": {
                        "kms:CallerAccount": account_id,
                        "kms:ViaService": [f"{service}.{region}.amazonaws.com" for service in via],
                    }
                },
            )
        )
    return [*statements, *_service_statements(purpose, region, account_id)]


_VIA: Final[Mapping[Purpose, Sequence[str]]] = {
    Purpose.DATABASE: ("rds",),
    Purpose.CACHE: ("elasticache",),
    Purpose.CLUSTER: ("eks",),
    Purpose.VOLUMES: ("ec2",),
    Purpose.STORAGE: ("s3",),
    Purpose.REGISTRY: ("ecr",),
    Purpose.SECRETS: ("secretsmanager",),
    Purpose.BACKUP: ("backup", "rds", "s3"),
}


def _service_statements(purpose: Purpose, region: str, account_id: str) -> list[Statement]:
    own_account = {"StringEquals": {"aws:SourceAccount": account_id}}
    autoscaling = (
        f"arn:aws:iam::{account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    )
    match purpose:
        case Purpose.LOGS:
            log_groups = f"arn:aws:logs:{region}:{account_id}:log-group:*"
            return [
                Statement(
                    "EncryptLogGroups",
                    actions=_USE,
                    resources=["*"],
                    principals={"Service": [f"logs.{region}.amazonaws.com"]},
                    conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
                )
            ]
        case Purpose.NOTIFICATIONS:
            publishers = ["cloudwatch", "events", "backup", "budgets", "events.rds", "elasticache"]
            return [
                Statement(
                    "PublishToTopics",
                    actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                    resources=["*"],
                    principals={"Service": [f"{service}.amazonaws.com" for service in publishers]},
                    conditions=own_account,
                )
            ]
        case Purpose.STORAGE:
            return [
                Statement(
                    "DeliverLoadBalancerLogs",
                    actions=_USE,
                    resources=["*"],
                    principals={"Service": ["delivery.logs.amazonaws.com"]},
                    conditions=own_account,
                )
            ]
        case Purpose.VOLUMES:
            return [
                Statement("NodeVolumes", actions=_USE, resources=["*"], principals={"AWS": [autoscaling]}),
                Statement(
                    "NodeVolumeGrants",
                    actions=["kms:CreateGrant"],
                    resources=["*"],
                    principals={"AWS": [autoscaling]},
                    conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
                ),
            ]
        case _:
            return []
