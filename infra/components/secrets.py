"""Secrets of the services: empty shells under a CMK, filled by rotation or by an operator, never by this program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, deny_without_tls, policy_document, service_trust
from infra.components.log_group import log_group
from infra.tags import Tags

ROTATION_DAYS: Final = 30
_HANDLER: Final = Path(__file__).parent / "rotation" / "handler.py"


class SecretName(StrEnum):
    """What the services need to keep to themselves."""

    JWT_SIGNING_KEY = "jwt-signing-key"
    SESSION_KEY = "session-key"
    MARKET_DATA_API_KEY = "market-data-api-key"
    NOTIFICATION_WEBHOOK = "notification-webhook"
    MONITORING_PASSWORD = "monitoring-password"  # noqa: S105 -- its name, not the password


_DESCRIPTIONS: Final[Mapping[SecretName, str]] = {
    SecretName.JWT_SIGNING_KEY: "Signs access tokens (JWT_SECRET); rotated",
    SecretName.SESSION_KEY: "Signs cursors and idempotency keys (SECRET_KEY); rotated",
    SecretName.MARKET_DATA_API_KEY: "Key of the market data vendor; put in place by an operator",
    SecretName.NOTIFICATION_WEBHOOK: "Address that on-call notifications go to; put in place by an operator",
    SecretName.MONITORING_PASSWORD: "Of the database role that reads statistics; a job hands it on; rotated",
}
ROTATED: Final = (SecretName.JWT_SIGNING_KEY, SecretName.SESSION_KEY, SecretName.MONITORING_PASSWORD)
"""Random text that we may change ourselves. The others belong to vendors, who alone can issue new ones."""


@dataclass(frozen=True)
class SecretsArgs:
    """What the secrets need to know."""

    region: str
    account_id: str
    key_arn: pulumi.Input[str]
    recovery_window_days: int
    logs_key_arn: pulumi.Input[str]
    log_retention_days: int
    protect: bool
    tags: Tags


class Secrets(pulumi.ComponentResource):
    """Secrets without values in state: pods read them at run time, by ARN.

    Rotation makes the first value of the signing keys as well as every later one.
    """

    arns: Mapping[SecretName, pulumi.Output[str]]

    def __init__(self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Secrets", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        secrets = {secret: self._secret(secret) for secret in SecretName}
        self.arns = {secret: resource.arn for secret, resource in secrets.items()}
        rotator, permission = self._rotator([self.arns[secret] for secret in ROTATED])
        for secret in ROTATED:
            aws.secretsmanager.SecretRotation(
                f"{name}-{secret}",
                secret_id=secrets[secret].id,
                rotation_lambda_arn=rotator.arn,
                rotation_rules=aws.secretsmanager.SecretRotationRotationRulesArgs(
                    automatically_after_days=ROTATION_DAYS
                ),
                rotate_immediately=True,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
            )
        self.register_outputs({"arns": {secret.value: arn for secret, arn in self.arns.items()}})

    def _secret(self, secret: SecretName) -> aws.secretsmanager.Secret:
        args = self._args
        resource = aws.secretsmanager.Secret(
            f"{self._name}-{secret}",
            description=_DESCRIPTIONS[secret],
            kms_key_id=args.key_arn,
            recovery_window_in_days=args.recovery_window_days,
            tags=args.tags.named(secret),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        aws.secretsmanager.SecretPolicy(
            f"{self._name}-{secret}",
            secret_arn=resource.arn,
            block_public_policy=True,
            policy=policy_document(deny_without_tls("*", action="secretsmanager:*")),
            opts=self._child,
        )
        return resource

    def _rotator(
        self, secret_arns: Sequence[pulumi.Output[str]]
    ) -> tuple[aws.lambda_.Function, aws.lambda_.Permission]:
        """The function that rotates, with rights on these secrets alone."""
        args = self._args
        function_name = f"{args.tags.project}-{args.tags.stack}-rotate-keys"
        logs = log_group(
            f"{self._name}-rotation-logs",
            path=f"/aws/lambda/{function_name}",
            key_arn=args.logs_key_arn,
            retention_days=args.log_retention_days,
            tags=args.tags,
            opts=self._child,
        )
        role = aws.iam.Role(
            f"{self._name}-rotation",
            description="Rotates the services' signing keys",
            assume_role_policy=service_trust("lambda.amazonaws.com", args.account_id),
            tags=args.tags.named("rotation"),
            opts=self._child,
        )
        rights = aws.iam.RolePolicy(
            f"{self._name}-rotation",
            role=role.id,
            policy=policy_document(*rotation_statements(secret_arns, args.key_arn, logs.arn)),
            opts=self._child,
        )
        function = aws.lambda_.Function(
            f"{self._name}-rotation",
            name=function_name,
            description="Rotates the services' signing keys",
            role=role.arn,
            runtime="python3.13",
            architectures=["arm64"],
            handler="handler.handle",
            code=pulumi.AssetArchive({"handler.py": pulumi.StringAsset(_HANDLER.read_text(encoding="utf-8"))}),
            timeout=30,
            memory_size=128,
            tags=args.tags.named("rotation"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[rights, logs]),
        )
        permission = aws.lambda_.Permission(
            f"{self._name}-rotation",
            action="lambda:InvokeFunction",
            function=function.name,
            principal="secretsmanager.amazonaws.com",
            source_account=args.account_id,
            opts=self._child,
        )
        return function, permission


def rotation_statements(
    secret_arns: Sequence[pulumi.Input[str]], key_arn: pulumi.Input[str], log_group_arn: pulumi.Input[str]
) -> Sequence[Statement]:
    """What the rotating function may do."""
    return (
        Statement(
            "RotateTheseSecrets",
            actions=[
                "secretsmanager:DescribeSecret",
                "secretsmanager:GetSecretValue",
                "secretsmanager:PutSecretValue",
                "secretsmanager:UpdateSecretVersionStage",
            ],
            resources=list(secret_arns),
        ),
        Statement("RandomText", actions=["secretsmanager:GetRandomPassword"], resources=["*"]),
        Statement("UseKey", actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key_arn]),
        Statement(
            "WriteLogs",
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[pulumi.Output.concat(log_group_arn, ":*")],
        ),
    )
