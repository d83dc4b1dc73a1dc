"""AWS Backup: a locked vault, a plan, and a drill that restores what the plan has saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, policy_document, service_trust
from infra.tags import Tags

MIN_RETENTION_DAYS: Final = 7
_DAYS_TO_CHANGE_THE_LOCK: Final = 3
_SERVICE_POLICIES: Final = "arn:aws:iam::aws:policy"
_FAILURES: Final = ("BACKUP_JOB_FAILED", "RESTORE_JOB_FAILED", "COPY_JOB_FAILED", "S3_BACKUP_OBJECT_FAILED")


@dataclass(frozen=True)
class BackupArgs:
    """What is saved, and for how long."""

    account_id: str
    key_arn: pulumi.Input[str]
    resources: Mapping[str, pulumi.Input[str]]
    """ARN of everything stateful, by what it is."""
    database_arn: pulumi.Input[str]
    retention_days: int
    compliance_lock: bool
    """Locked for everyone, the root user included, three days after it was set."""
    protect: bool
    topic_arn: pulumi.Input[str]
    tags: Tags


class Backup(pulumi.ComponentResource):
    """Daily recovery points under a CMK; a monthly restore test proves that they can be read."""

    vault_name: pulumi.Output[str]
    vault_arn: pulumi.Output[str]

    def __init__(self, name: str, args: BackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Backup", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        vault = self._vault()
        role = self._role()
        plan = self._plan(vault)
        aws.backup.Selection(
            f"{name}-selection",
            name=f"{args.tags.project}-{args.tags.stack}",
            plan_id=plan.id,
            iam_role_arn=role.arn,
            resources=list(args.resources.values()),
            opts=self._child,
        )
        self._restore_drill(vault, role)
        self.vault_name, self.vault_arn = vault.name, vault.arn
        self.register_outputs({"vaultArn": self.vault_arn})

    def _vault(self) -> aws.backup.Vault:
        args = self._args
        vault = aws.backup.Vault(
            f"{self._name}-vault",
            kms_key_arn=args.key_arn,
            force_destroy=False,
            tags=args.tags.named("backup-vault"),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        aws.backup.VaultLockConfiguration(
            f"{self._name}-vault-lock",
            backup_vault_name=vault.name,
            min_retention_days=MIN_RETENTION_DAYS,
            max_retention_days=args.retention_days,
            changeable_for_days=_DAYS_TO_CHANGE_THE_LOCK if args.compliance_lock else None,
            opts=self._child,
        )
        aws.backup.VaultPolicy(
            f"{self._name}-vault",
            backup_vault_name=vault.name,
            policy=policy_document(
                Statement(
                    "NobodyDeletesRecoveryPoints",
                    effect="Deny",
                    actions=["backup:DeleteRecoveryPoint", "backup:UpdateRecoveryPointLifecycle"],
                    resources=["*"],
                    principals="*",
                )
            ),
            opts=self._child,
        )
        aws.backup.VaultNotifications(
            f"{self._name}-vault",
            backup_vault_name=vault.name,
            sns_topic_arn=args.topic_arn,
            backup_vault_events=list(_FAILURES),
            opts=self._child,
        )
        return vault

    def _role(self) -> aws.iam.Role:
        role = aws.iam.Role(
            f"{self._name}-service",
            description="AWS Backup saves and restores",
            assume_role_policy=service_trust("backup.amazonaws.com", self._args.account_id),
            tags=self._args.tags.named("backup"),
            opts=self._child,
        )
        for policy in (
            "service-role/AWSBackupServiceRolePolicyForBackup",
            "service-role/AWSBackupServiceRolePolicyForRestores",
            "AWSBackupServiceRolePolicyForS3Backup",
            "AWSBackupServiceRolePolicyForS3Restore",
        ):
            aws.iam.RolePolicyAttachment(
                f"{self._name}-{policy.rsplit('/', maxsplit=1)[-1]}",
                role=role.name,
                policy_arn=f"{_SERVICE_POLICIES}/{policy}",
                opts=self._child,
            )
        return role

    def _plan(self, vault: aws.backup.Vault) -> aws.backup.Plan:
        # No continuous rule: point-in-time recovery is RDS's own, and AWS Backup would rewrite its retention.
        args = self._args
        return aws.backup.Plan(
            f"{self._name}-plan",
            name=f"{args.tags.project}-{args.tags.stack}",
            rules=[
                aws.backup.PlanRuleArgs(
                    rule_name="daily",
                    target_vault_name=vault.name,
                    schedule="cron(0 3 * * ? *)",
                    start_window=60,
                    completion_window=360,
                    lifecycle=aws.backup.PlanRuleLifecycleArgs(delete_after=args.retention_days),
                    recovery_point_tags=args.tags.named("recovery-point"),
                ),
            ],
            tags=args.tags.named("backup-plan"),
            opts=self._child,
        )

    def _restore_drill(self, vault: aws.backup.Vault, role: aws.iam.Role) -> None:
        """A backup that was never restored is a hope: restore the newest point of the database every month."""
        args = self._args
        label = f"{args.tags.project}_{args.tags.stack}".replace("-", "_")
        plan = aws.backup.RestoreTestingPlan(
            f"{self._name}-restore-drill",
            name=f"{label}_monthly",
            schedule_expression="cron(0 6 1 * ? *)",
            start_window_hours=8,
            recovery_point_selection=aws.backup.RestoreTestingPlanRecoveryPointSelectionArgs(
                algorithm="LATEST_WITHIN_WINDOW",
                include_vaults=[vault.arn],
                recovery_point_types=["SNAPSHOT"],
                selection_window_days=7,
            ),
            tags=args.tags.named("restore-drill"),
            opts=self._child,
        )
        aws.backup.RestoreTestingSelection(
            f"{self._name}-restore-drill",
            name=f"{label}_database",
            restore_testing_plan_name=plan.name,
            iam_role_arn=role.arn,
            protected_resource_type="RDS",
            protected_resource_arns=[args.database_arn],
            validation_window_hours=4,
            opts=self._child,
        )
