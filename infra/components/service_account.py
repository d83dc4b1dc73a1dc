"""Who a workload is: its service account, its AWS rights, and the secrets that it may mount."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components.iam import Statement
from infra.components.namespaces import Namespace
from infra.components.pod_identity import PodIdentity, PodIdentityArgs
from infra.tags import Tags

SECRETS_DIRECTORY: Final = "/run/secrets/grandmodel"


@dataclass(frozen=True)
class SecretFile:
    """A secret, or one key of a JSON secret, as a file of :data:`SECRETS_DIRECTORY`."""

    file: str
    secret_arn: pulumi.Input[str]
    json_key: str | None = None


@dataclass(frozen=True)
class ServiceAccountArgs:
    """Whose account, with what rights."""

    account_id: str
    cluster_name: pulumi.Input[str]
    namespace: Namespace
    secrets: Sequence[SecretFile]
    secrets_key_arn: pulumi.Input[str]
    labels: Mapping[str, str]
    tags: Tags
    statements: Sequence[Statement] = ()
    secret_provider: Sequence[pulumi.Resource] = field(default_factory=tuple)
    """The CSI driver: its custom resource must be known."""


class ServiceAccount(pulumi.ComponentResource):
    """Service account without a token, its AWS rights by Pod Identity, and a SecretProviderClass for its secrets."""

    name: str
    secret_provider_class: str | None
    ready: Sequence[pulumi.Resource]
    """A pod that starts before these gets no credentials."""

    def __init__(self, name: str, args: ServiceAccountArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:ServiceAccount", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.name = name
        account = kubernetes.core.v1.ServiceAccount(
            name,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=name, namespace=args.namespace.value, labels=dict(args.labels)
            ),
            automount_service_account_token=False,
            opts=child,
        )
        statements = [*args.statements]
        if args.secrets:
            arns = _distinct([secret.secret_arn for secret in args.secrets])
            statements += secret_statements(arns, args.secrets_key_arn)
        ready: list[pulumi.Resource] = [account]
        if statements:
            ready.append(
                PodIdentity(
                    name,
                    PodIdentityArgs(
                        account_id=args.account_id,
                        cluster_name=args.cluster_name,
                        namespace=args.namespace.value,
                        service_account=name,
                        statements=statements,
                        tags=args.tags,
                    ),
                    opts=child,
                )
            )
        self.secret_provider_class = name if args.secrets else None
        if args.secrets:
            ready.append(
                kubernetes.apiextensions.CustomResource(
                    f"{name}-secrets",
                    api_version="secrets-store.csi.x-k8s.io/v1",
                    kind="SecretProviderClass",
                    metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace.value),
                    spec={
                        "provider": "aws",
                        "parameters": {
                            "usePodIdentity": "true",
                            "objects": pulumi.Output.json_dumps(secret_objects(args.secrets)),
                        },
                    },
                    opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.secret_provider)),
                )
            )
        self.ready = ready
        self.register_outputs({})


def _distinct(arns: Sequence[pulumi.Input[str]]) -> list[pulumi.Input[str]]:
    return list({id(arn): arn for arn in arns}.values())


def secret_statements(arns: Sequence[pulumi.Input[str]], key_arn: pulumi.Input[str]) -> list[Statement]:
    """Rights to read ``arns``, and to use their key for nothing but that."""
    return [
        Statement(
            "ReadOwnSecrets",
            actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            resources=list(arns),
        ),
        Statement("DecryptSecrets", actions=["kms:Decrypt"], resources=[key_arn]),
    ]


def secret_objects(secrets: Sequence[SecretFile]) -> list[dict[str, object]]:
    """What the AWS provider of the CSI driver fetches (its README, "SecretProviderClass options")."""
    return [
        {
            "objectName": secret.secret_arn,
            "objectType": "secretsmanager",
            # A file of one key has another name than the whole object's, which is written beside it.
            **(
                {
                    "objectAlias": f"{secret.file}.json",
                    "jmesPath": [{"path": secret.json_key, "objectAlias": secret.file}],
                }
                if secret.json_key
                else {"objectAlias": secret.file}
            ),
        }
        for secret in secrets
    ]
