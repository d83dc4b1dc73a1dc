"""How pull requests look at the estate: a read-only role that only one environment of one repository may assume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, policy_document
from infra.tags import Tags

_ISSUER: Final = "token.actions.githubusercontent.com"
_AUDIENCE: Final = "sts.amazonaws.com"


@dataclass(frozen=True)
class DeliveryArgs:
    """Which repository may look."""

    repository: str
    """As ``owner/name``."""
    tags: Tags


class Delivery(pulumi.ComponentResource):
    """OIDC provider of GitHub and the role for previews: it reads metadata, never data or secrets.

    The role that deploys is made outside this program: it must exist before the first deployment and outlive the last.
    """

    preview_role_arn: pulumi.Output[str]

    def __init__(self, name: str, args: DeliveryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Delivery", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        provider = aws.iam.OpenIdConnectProvider(
            f"{name}-github",
            url=f"https://{_ISSUER}",
            client_id_lists=[_AUDIENCE],
            tags=args.tags.named("github"),
            opts=child,
        )
        role = aws.iam.Role(
            f"{name}-preview",
            description="Previews of pull requests: read-only",
            max_session_duration=3600,
            assume_role_policy=policy_document(
                Statement(
                    "AssumeByEnvironment",
                    actions=["sts:AssumeRoleWithWebIdentity"],
                    principals={"Federated": [provider.arn]},
                    conditions={
                        "StringEquals": {
                            f"{_ISSUER}:aud": _AUDIENCE,
                            f"{_ISSUER}:sub": f"repo:{args.repository}:environment:preview-{args.tags.stack}",
                        }
                    },
                )
            ),
            tags=args.tags.named("preview"),
            opts=child,
        )
        aws.iam.RolePolicyAttachment(
            f"{name}-preview", role=role.name, policy_arn="arn:aws:iam::aws:policy/ReadOnlyAccess", opts=child
        )
        aws.iam.RolePolicy(
            f"{name}-preview-no-data",
            role=role.id,
            policy=policy_document(
                Statement(
                    "NoDataNoSecrets",
                    effect="Deny",
                    actions=["secretsmanager:GetSecretValue", "kms:Decrypt", "s3:GetObject", "ssm:GetParameter*"],
                    resources=["*"],
                )
            ),
            opts=child,
        )
        self.preview_role_arn = role.arn
        self.register_outputs({"previewRoleArn": self.preview_role_arn})
