"""S3: models, backups, and the logs of the load balancer and of the buckets themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, deny_without_tls, policy_document
from infra.tags import Tags

BACKUP_WEEKS: Final = 4


class BucketName(StrEnum):
    """What each bucket is for."""

    ACCESS_LOGS = "access-logs"
    LOAD_BALANCER_LOGS = "load-balancer-logs"
    MODELS = "models"
    BACKUPS = "backups"


@dataclass(frozen=True)
class Expiry:
    """After how many days objects, and replaced or deleted versions of them, go. None keeps objects for good."""

    current_days: int | None
    noncurrent_days: int


_EXPIRY: Final[Mapping[BucketName, Expiry]] = {
    BucketName.ACCESS_LOGS: Expiry(current_days=365, noncurrent_days=7),
    BucketName.LOAD_BALANCER_LOGS: Expiry(current_days=365, noncurrent_days=7),
    BucketName.MODELS: Expiry(current_days=None, noncurrent_days=90),
    BucketName.BACKUPS: Expiry(current_days=BACKUP_WEEKS * 7, noncurrent_days=7),
}


@dataclass(frozen=True)
class StorageArgs:
    """What the buckets need to know."""

    region: str
    account_id: str
    key_arn: pulumi.Input[str]
    protect: bool
    tags: Tags


class Storage(pulumi.ComponentResource):
    """Buckets that are private, versioned, encrypted, logged, readable over TLS only, and tidy themselves up."""

    bucket_names: Mapping[BucketName, pulumi.Output[str]]
    bucket_arns: Mapping[BucketName, pulumi.Output[str]]
    bucket_policies: Mapping[BucketName, aws.s3.BucketPolicy]

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Storage", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        buckets = {bucket: self._bucket(bucket) for bucket in BucketName}
        for bucket, resource in buckets.items():
            self._harden(bucket, resource)
        self.bucket_policies = {bucket: self._policy(bucket, resource) for bucket, resource in buckets.items()}
        for bucket, resource in buckets.items():
            if bucket is not BucketName.ACCESS_LOGS:
                self._log_access(bucket, resource, buckets[BucketName.ACCESS_LOGS])
        self.bucket_names = {bucket: resource.bucket for bucket, resource in buckets.items()}
        self.bucket_arns = {bucket: resource.arn for bucket, resource in buckets.items()}
        self.register_outputs({"bucketNames": {bucket.value: n for bucket, n in self.bucket_names.items()}})

    def _bucket(self, bucket: BucketName) -> aws.s3.Bucket:
        args = self._args
        backup = {"backup": "daily"} if bucket is BucketName.MODELS else {}
        return aws.s3.Bucket(
            f"{self._name}-{bucket}",
            force_destroy=False,
            tags=args.tags.named(bucket, **backup),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )

    def _harden(self, bucket: BucketName, resource: aws.s3.Bucket) -> None:
        name = f"{self._name}-{bucket}"
        aws.s3.BucketPublicAccessBlock(
            name,
            bucket=resource.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._child,
        )
        aws.s3.BucketOwnershipControls(
            name,
            bucket=resource.id,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=self._child,
        )
        versioning = aws.s3.BucketVersioning(
            name,
            bucket=resource.id,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=self._child,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name, bucket=resource.id, rules=[self._encryption(bucket)], opts=self._child
        )
        self._tidy(bucket, resource, versioning)

    def _tidy(self, bucket: BucketName, resource: aws.s3.Bucket, versioning: aws.s3.BucketVersioning) -> None:
        rule = aws.s3.BucketLifecycleConfigurationRuleArgs
        abort = aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(days_after_initiation=7)
        noncurrent = aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs
        current = aws.s3.BucketLifecycleConfigurationRuleExpirationArgs
        expiry = _EXPIRY[bucket]
        aws.s3.BucketLifecycleConfiguration(
            f"{self._name}-{bucket}",
            bucket=resource.id,
            rules=[
                rule(
                    id="tidy",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    abort_incomplete_multipart_upload=abort,
                    expiration=None if expiry.current_days is None else current(days=expiry.current_days),
                    noncurrent_version_expiration=noncurrent(noncurrent_days=expiry.noncurrent_days),
                )
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )

    def _encryption(self, bucket: BucketName) -> aws.s3.BucketServerSideEncryptionConfigurationRuleArgs:
        default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs
        # S3 delivers access logs only to buckets under SSE-S3 (S3 user guide, "Enabling server access logging").
        if bucket is BucketName.ACCESS_LOGS:
            chosen = default(sse_algorithm="AES256")
        else:
            chosen = default(sse_algorithm="aws:kms", kms_master_key_id=self._args.key_arn)
        return aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
            apply_server_side_encryption_by_default=chosen, bucket_key_enabled=True
        )

    def _policy(self, bucket: BucketName, resource: aws.s3.Bucket) -> aws.s3.BucketPolicy:
        objects = pulumi.Output.concat(resource.arn, "/*")
        return aws.s3.BucketPolicy(
            f"{self._name}-{bucket}",
            bucket=resource.id,
            policy=policy_document(
                deny_without_tls(resource.arn, objects, action="s3:*"),
                *delivery_statements(bucket, resource.arn, self._args.region, self._args.account_id),
            ),
            opts=self._child,
        )

    def _log_access(self, bucket: BucketName, resource: aws.s3.Bucket, target: aws.s3.Bucket) -> None:
        aws.s3.BucketLogging(
            f"{self._name}-{bucket}",
            bucket=resource.id,
            target_bucket=target.id,
            target_prefix=f"{bucket}/",
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.bucket_policies[BucketName.ACCESS_LOGS]]),
        )


def delivery_statements(
    bucket: BucketName, bucket_arn: pulumi.Input[str], region: str, account_id: str
) -> Sequence[Statement]:
    """Who of AWS may put logs into a bucket."""
    objects = pulumi.Output.concat(bucket_arn, "/*")
    own_account = {"aws:SourceAccount": account_id}
    match bucket:
        case BucketName.ACCESS_LOGS:
            return (
                Statement(
                    "DeliverAccessLogs",
                    actions=["s3:PutObject"],
                    resources=[objects],
                    principals={"Service": ["logging.s3.amazonaws.com"]},
                    conditions={"StringEquals": own_account},
                ),
            )
        case BucketName.LOAD_BALANCER_LOGS:
            source = {"aws:SourceArn": f"arn:aws:logs:{region}:{account_id}:*"}
            delivery = {"Service": ["delivery.logs.amazonaws.com"]}
            return (
                Statement(
                    "DeliverLoadBalancerLogs",
                    actions=["s3:PutObject"],
                    resources=[objects],
                    principals=delivery,
                    conditions={"StringEquals": own_account, "ArnLike": source},
                ),
                Statement(
                    "CheckBucket",
                    actions=["s3:GetBucketAcl", "s3:ListBucket"],
                    resources=[bucket_arn],
                    principals=delivery,
                    conditions={"StringEquals": own_account, "ArnLike": source},
                ),
            )
        case _:
            return ()
