"""A CloudWatch log group as this estate wants every one: encrypted, kept for a stated time."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.tags import Tags


def log_group(
    name: str,
    *,
    path: pulumi.Input[str],
    key_arn: pulumi.Input[str],
    retention_days: int,
    tags: Tags,
    opts: pulumi.ResourceOptions,
) -> aws.cloudwatch.LogGroup:
    """Log group at ``path`` under the CMK ``key_arn``.

    Services that create a missing group themselves (RDS, EKS) make it without key and retention: declare it first.
    """
    return aws.cloudwatch.LogGroup(
        name, name=path, kms_key_id=key_arn, retention_in_days=retention_days, tags=tags.named(name), opts=opts
    )
