"""AWS rights for one Kubernetes service account, by EKS Pod Identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, policy_document
from infra.tags import Tags


@dataclass(frozen=True)
class PodIdentityArgs:
    """Which service account gets which rights."""

    account_id: str
    cluster_name: pulumi.Input[str]
    namespace: str
    service_account: str
    statements: Sequence[Statement] = ()
    managed_policy_arns: Sequence[str] = ()
    tags: Tags | None = None


class PodIdentity(pulumi.ComponentResource):
    """A role for one namespace and service account, and its association.

    A pod that starts before its association gets no credentials: let workloads depend on this component.
    """

    role_arn: pulumi.Output[str]
    role_name: pulumi.Output[str]

    def __init__(self, name: str, args: PodIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:PodIdentity", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        tags = args.tags.named(name) if args.tags else None
        role = aws.iam.Role(
            f"{name}-pods",
            description=f"Pods of {args.namespace}/{args.service_account}",
            assume_role_policy=pod_trust(args.account_id, args.namespace, args.service_account),
            tags=tags,
            opts=child,
        )
        rights: list[pulumi.Resource] = [
            aws.iam.RolePolicyAttachment(f"{name}-{arn.rsplit('/', 1)[1]}", role=role.name, policy_arn=arn, opts=child)
            for arn in args.managed_policy_arns
        ]
        if args.statements:
            rights.append(
                aws.iam.RolePolicy(f"{name}-pods", role=role.id, policy=policy_document(*args.statements), opts=child)
            )
        aws.eks.PodIdentityAssociation(
            f"{name}-pods",
            cluster_name=args.cluster_name,
            namespace=args.namespace,
            service_account=args.service_account,
            role_arn=role.arn,
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=rights),
        )
        self.role_arn, self.role_name = role.arn, role.name
        self.register_outputs({"roleArn": self.role_arn})


def pod_trust(account_id: str, namespace: str | None = None, service_account: str | None = None) -> pulumi.Output[str]:
    """Trust policy for pods of this account's clusters, narrowed to a service account when one is given.

    The session tags of EKS Pod Identity carry namespace and service account (EKS user guide, "session tags").
    """
    conditions: dict[str, str] = {"aws:SourceAccount": account_id}
    if namespace and service_account:
        conditions["aws:RequestTag/kubernetes-namespace"] = namespace
        conditions["aws:RequestTag/kubernetes-service-account"] = service_account
    return policy_document(
        Statement(
            "AssumeByPods",
            actions=["sts:AssumeRole", "sts:TagSession"],
            principals={"Service": ["pods.eks.amazonaws.com"]},
            conditions={"StringEquals": conditions},
        )
    )
