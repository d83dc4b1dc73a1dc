"""Add-ons that run on nodes, and the AWS rights of the controllers that the cluster hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement
from infra.components.pod_identity import PodIdentity, PodIdentityArgs
from infra.tags import Tags

COREDNS: Final = "coredns"
EBS_CSI: Final = "aws-ebs-csi-driver"
METRICS_SERVER: Final = "metrics-server"
CLOUDWATCH: Final = "amazon-cloudwatch-observability"


@dataclass(frozen=True)
class AddonsArgs:
    """What the add-ons need to know."""

    region: str
    account_id: str
    cluster_name: pulumi.Input[str]
    addon_versions: Mapping[str, str]
    compute: Sequence[pulumi.Resource]
    """Node groups: these add-ons stay pending without one."""
    volumes_key_arn: pulumi.Input[str]
    target_group_arns: Sequence[pulumi.Input[str]]
    tags: Tags


class Addons(pulumi.ComponentResource):
    """CoreDNS, EBS volumes, metrics and CloudWatch observability, each pinned, each with rights of its own."""

    def __init__(self, name: str, args: AddonsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Addons", name, None, opts)
        self._name, self._args = name, args
        rights = [
            self._identity(
                "ebs-csi",
                "kube-system",
                "ebs-csi-controller-sa",
                managed_policy_arns=["arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"],
                statements=volume_statements(args.volumes_key_arn),
            ),
            self._identity(
                "cloudwatch-agent",
                "amazon-cloudwatch",
                "cloudwatch-agent",
                managed_policy_arns=["arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy"],
            ),
        ]
        self._identity(
            "load-balancer-controller",
            "kube-system",
            "aws-load-balancer-controller",
            statements=target_registration_statements(args.target_group_arns),
        )
        self._identity(
            "cluster-autoscaler",
            "kube-system",
            "cluster-autoscaler",
            statements=autoscaler_statements(args.region, args.account_id, args.tags),
        )
        for addon in (COREDNS, EBS_CSI, METRICS_SERVER, CLOUDWATCH):
            aws.eks.Addon(
                f"{name}-{addon}",
                cluster_name=args.cluster_name,
                addon_name=addon,
                addon_version=args.addon_versions[addon],
                resolve_conflicts_on_create="OVERWRITE",
                resolve_conflicts_on_update="OVERWRITE",
                tags=args.tags.named(addon),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[*args.compute, *rights]),
            )
        self.register_outputs({})

    def _identity(
        self,
        label: str,
        namespace: str,
        service_account: str,
        *,
        managed_policy_arns: Sequence[str] = (),
        statements: Sequence[Statement] = (),
    ) -> PodIdentity:
        return PodIdentity(
            f"{self._name}-{label}",
            PodIdentityArgs(
                account_id=self._args.account_id,
                cluster_name=self._args.cluster_name,
                namespace=namespace,
                service_account=service_account,
                managed_policy_arns=managed_policy_arns,
                statements=statements,
                tags=self._args.tags,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )


def volume_statements(key_arn: pulumi.Input[str]) -> Sequence[Statement]:
    """Rights on the CMK of volumes that the CSI driver creates."""
    return (
        Statement(
            "UseVolumeKey",
            actions=["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"],
            resources=[key_arn],
        ),
        Statement(
            "GrantVolumeKey",
            actions=["kms:CreateGrant"],
            resources=[key_arn],
            conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
        ),
    )


def target_registration_statements(target_group_arns: Sequence[pulumi.Input[str]]) -> Sequence[Statement]:
    """Rights of the AWS Load Balancer Controller: register pods in our target groups; it creates nothing."""
    return (
        Statement(
            "RegisterTargets",
            actions=["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"],
            resources=list(target_group_arns),
        ),
        Statement(
            "LookAround",
            actions=[
                "ec2:DescribeAvailabilityZones",
                "ec2:DescribeInstances",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
                "elasticloadbalancing:DescribeTargetGroups",
                "elasticloadbalancing:DescribeTargetHealth",
            ],
            resources=["*"],
        ),
    )


def autoscaler_statements(region: str, account_id: str, tags: Tags) -> Sequence[Statement]:
    """Rights of the Cluster Autoscaler: size this cluster's node groups, which EKS tags with the cluster's name."""
    cluster = f"{tags.project}-{tags.stack}"
    groups = f"arn:aws:autoscaling:{region}:{account_id}:autoScalingGroup:*:autoScalingGroupName/eks-*"
    return (
        Statement(
            "Resize",
            actions=["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
            resources=[groups],
            conditions={"StringEquals": {"aws:ResourceTag/eks:cluster-name": cluster}},
        ),
        Statement(
            "LookAround",
            actions=[
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeAutoScalingInstances",
                "autoscaling:DescribeLaunchConfigurations",
                "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeTags",
                "ec2:DescribeImages",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:GetInstanceTypesFromInstanceRequirements",
            ],
            resources=["*"],
        ),
        Statement(
            "ReadNodeGroups",
            actions=["eks:DescribeNodegroup"],
            resources=[f"arn:aws:eks:{region}:{account_id}:nodegroup/{cluster}/*/*"],
        ),
    )
