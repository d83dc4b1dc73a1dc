"""The EKS control plane, who may speak to it, and the add-ons that nodes need before they join."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import service_trust
from infra.components.log_group import log_group
from infra.components.pod_identity import pod_trust
from infra.tags import Tags

CONTROL_PLANE_LOGS: Final = ("api", "audit", "authenticator", "controllerManager", "scheduler")
_ACCESS_POLICIES: Final = "arn:aws:eks::aws:cluster-access-policy"


@dataclass(frozen=True)
class ClusterArgs:
    """What the control plane needs to know."""

    account_id: str
    vpc_id: pulumi.Input[str]
    private_subnet_ids: Sequence[pulumi.Input[str]]
    service_cidr: str
    kubernetes_version: str
    addon_versions: Mapping[str, str]
    """Add-on name to its exact version."""
    admin_role_arns: Sequence[str]
    viewer_role_arns: Sequence[str]
    public_access_cidrs: Sequence[str]
    """Who may reach the API from outside the VPC; empty keeps it private."""
    secrets_key_arn: pulumi.Input[str]
    logs_key_arn: pulumi.Input[str]
    log_retention_days: int
    deletion_protection: bool
    protect: bool
    tags: Tags


class Cluster(pulumi.ComponentResource):
    """EKS with API authentication only: no aws-auth map, no rights for whoever created it (pulumi-eks#1493)."""

    name: pulumi.Output[str]
    arn: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    certificate_authority: pulumi.Output[str]
    security_group_id: pulumi.Output[str]
    """Group of the control plane's own network interfaces."""
    before_compute: Sequence[pulumi.Resource]
    """What nodes must find when they join."""

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Cluster", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        group = aws.ec2.SecurityGroup(
            f"{name}-control-plane",
            description="Network interfaces of the Kubernetes control plane",
            vpc_id=args.vpc_id,
            tags=args.tags.named("control-plane"),
            opts=self._child,
        )
        cluster = self._control_plane(group)
        self._grant_access(cluster)
        self.before_compute = self._addons(cluster)
        self.name, self.arn, self.endpoint = cluster.name, cluster.arn, cluster.endpoint
        self.certificate_authority = cluster.certificate_authority.data.apply(lambda data: data or "")
        self.security_group_id = group.id
        self.register_outputs({"name": self.name, "endpoint": self.endpoint})

    def _control_plane(self, group: aws.ec2.SecurityGroup) -> aws.eks.Cluster:
        args = self._args
        cluster_name = f"{args.tags.project}-{args.tags.stack}"
        role = aws.iam.Role(
            f"{self._name}-control-plane",
            description="EKS control plane",
            assume_role_policy=service_trust("eks.amazonaws.com", args.account_id),
            tags=args.tags.named("control-plane"),
            opts=self._child,
        )
        attachment = aws.iam.RolePolicyAttachment(
            f"{self._name}-control-plane",
            role=role.name,
            policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
            opts=self._child,
        )
        logs = log_group(
            f"{self._name}-control-plane-logs",
            path=f"/aws/eks/{cluster_name}/cluster",
            key_arn=args.logs_key_arn,
            retention_days=args.log_retention_days,
            tags=args.tags,
            opts=self._child,
        )
        return aws.eks.Cluster(
            f"{self._name}-control-plane",
            name=cluster_name,
            role_arn=role.arn,
            version=args.kubernetes_version,
            bootstrap_self_managed_addons=False,
            deletion_protection=args.deletion_protection,
            enabled_cluster_log_types=list(CONTROL_PLANE_LOGS),
            access_config=aws.eks.ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=False
            ),
            encryption_config=aws.eks.ClusterEncryptionConfigArgs(
                provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=args.secrets_key_arn),
                resources=["secrets"],
            ),
            kubernetes_network_config=aws.eks.ClusterKubernetesNetworkConfigArgs(
                ip_family="ipv4", service_ipv4_cidr=args.service_cidr
            ),
            upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
            vpc_config=aws.eks.ClusterVpcConfigArgs(
                subnet_ids=list(args.private_subnet_ids),
                security_group_ids=[group.id],
                endpoint_private_access=True,
                endpoint_public_access=bool(args.public_access_cidrs),
                public_access_cidrs=list(args.public_access_cidrs) or None,
            ),
            zonal_shift_config=aws.eks.ClusterZonalShiftConfigArgs(enabled=True),
            tags=args.tags.named("cluster"),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect, depends_on=[attachment, logs]),
        )

    def _grant_access(self, cluster: aws.eks.Cluster) -> None:
        grants = {
            "AmazonEKSClusterAdminPolicy": self._args.admin_role_arns,
            "AmazonEKSAdminViewPolicy": self._args.viewer_role_arns,
        }
        for policy, role_arns in grants.items():
            for role_arn in role_arns:
                role = role_arn.rsplit("/", 1)[1]
                entry = aws.eks.AccessEntry(
                    f"{self._name}-access-{role}",
                    cluster_name=cluster.name,
                    principal_arn=role_arn,
                    type="STANDARD",
                    tags=self._args.tags.named(f"access-{role}"),
                    opts=self._child,
                )
                aws.eks.AccessPolicyAssociation(
                    f"{self._name}-access-{role}",
                    cluster_name=cluster.name,
                    principal_arn=role_arn,
                    policy_arn=f"{_ACCESS_POLICIES}/{policy}",
                    access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[entry]),
                )

    def _addons(self, cluster: aws.eks.Cluster) -> list[pulumi.Resource]:
        """Networking first: without it a node never becomes ready."""
        args = self._args
        network_role = aws.iam.Role(
            f"{self._name}-vpc-cni",
            description="Pods' network interfaces",
            assume_role_policy=pod_trust(args.account_id),
            tags=args.tags.named("vpc-cni"),
            opts=self._child,
        )
        attachment = aws.iam.RolePolicyAttachment(
            f"{self._name}-vpc-cni",
            role=network_role.name,
            policy_arn="arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
            opts=self._child,
        )
        agent = self._addon(cluster, "eks-pod-identity-agent")
        return [
            agent,
            self._addon(cluster, "kube-proxy"),
            self._addon(
                cluster,
                "vpc-cni",
                configuration={"enableNetworkPolicy": "true", "env": {"ENABLE_PREFIX_DELEGATION": "true"}},
                pod_identity_associations=[
                    aws.eks.AddonPodIdentityAssociationArgs(role_arn=network_role.arn, service_account="aws-node")
                ],
                # Deleted before the nodes it leaves network interfaces behind (pulumi-eks#779).
                preserve=True,
                depends_on=[attachment, agent],
            ),
        ]

    def _addon(
        self,
        cluster: aws.eks.Cluster,
        addon: str,
        *,
        configuration: Mapping[str, Any] | None = None,
        pod_identity_associations: Sequence[aws.eks.AddonPodIdentityAssociationArgs] | None = None,
        preserve: bool = False,
        depends_on: Sequence[pulumi.Resource] = (),
    ) -> aws.eks.Addon:
        return aws.eks.Addon(
            f"{self._name}-{addon}",
            cluster_name=cluster.name,
            addon_name=addon,
            addon_version=self._args.addon_versions[addon],
            configuration_values=json.dumps(configuration, sort_keys=True) if configuration else None,
            pod_identity_associations=list(pod_identity_associations) if pod_identity_associations else None,
            preserve=preserve,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=self._args.tags.named(addon),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(depends_on)),
        )
