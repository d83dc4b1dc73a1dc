"""Groups of nodes: CPU for the strategic service, GPU for the tactical one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import instance_trust
from infra.components.node_bootstrap import TopologyPolicy, user_data
from infra.sizing import NodeSize
from infra.tags import Tags

GPU_TAINT_KEY: Final = "nvidia.com/gpu"
GPU_TAINT_VALUE: Final = "present"
"""The one taint of GPU nodes: device plugin, DCGM exporter and the tactical pods tolerate it."""
ROLE_LABEL: Final = "grandmodel/role"

_NODE_POLICIES: Final = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
_WORKDAYS: Final = {"start": "0 7 * * MON-FRI", "stop": "0 19 * * MON-FRI"}


@dataclass(frozen=True)
class NodeGroupSpec:
    """One group of equal nodes."""

    role: str
    """What its pods select by :data:`ROLE_LABEL`."""
    size: NodeSize
    ami_type: str
    ami_release: str
    min_size: int
    max_size: int
    topology: TopologyPolicy
    gpu: bool = False


@dataclass(frozen=True)
class NodesArgs:
    """What the nodes need to know."""

    cluster_name: pulumi.Input[str]
    kubernetes_version: str
    before_compute: Sequence[pulumi.Resource]
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    groups: Sequence[NodeGroupSpec]
    volumes_key_arn: pulumi.Input[str]
    scale_to_zero_outside_hours: bool
    working_hours_time_zone: str
    tags: Tags


class Nodes(pulumi.ComponentResource):
    """Managed node groups on pinned AL2023 releases: private, on encrypted disks, their metadata out of pods' reach."""

    security_group_id: pulumi.Output[str]
    groups: Mapping[str, aws.eks.NodeGroup]
    """Node group by role."""

    def __init__(self, name: str, args: NodesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Nodes", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._security_group = aws.ec2.SecurityGroup(
            f"{name}-node",
            description="Nodes and, by the VPC CNI, their pods",
            vpc_id=args.vpc_id,
            tags=args.tags.named("nodes", **{"kubernetes.io/cluster/grandmodel": "owned"}),
            opts=self._child,
        )
        self.security_group_id = self._security_group.id
        self._role = aws.iam.Role(
            f"{name}-node",
            description="Nodes: join the cluster and pull images, nothing more",
            assume_role_policy=instance_trust(),
            tags=args.tags.named("node"),
            opts=self._child,
        )
        self._attachments = [
            aws.iam.RolePolicyAttachment(
                f"{name}-{policy}",
                role=self._role.name,
                policy_arn=f"arn:aws:iam::aws:policy/{policy}",
                opts=self._child,
            )
            for policy in _NODE_POLICIES
        ]
        self.groups = {spec.role: self._group(spec) for spec in args.groups}
        self.register_outputs({"securityGroupId": self.security_group_id})

    def _group(self, spec: NodeGroupSpec) -> aws.eks.NodeGroup:
        args = self._args
        template = self._launch_template(spec)
        taint = aws.eks.NodeGroupTaintArgs(key=GPU_TAINT_KEY, value=GPU_TAINT_VALUE, effect="NO_SCHEDULE")
        group = aws.eks.NodeGroup(
            f"{self._name}-{spec.role}",
            cluster_name=args.cluster_name,
            node_role_arn=self._role.arn,
            subnet_ids=list(args.subnet_ids),
            version=args.kubernetes_version,
            ami_type=spec.ami_type,
            release_version=spec.ami_release,
            capacity_type="ON_DEMAND",
            instance_types=[spec.size.instance_type],
            launch_template=aws.eks.NodeGroupLaunchTemplateArgs(
                id=template.id, version=template.latest_version.apply(str)
            ),
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=spec.min_size, desired_size=spec.min_size, max_size=spec.max_size
            ),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            node_repair_config=aws.eks.NodeGroupNodeRepairConfigArgs(enabled=True),
            labels={ROLE_LABEL: spec.role, **({"nvidia.com/gpu.present": "true"} if spec.gpu else {})},
            taints=[taint] if spec.gpu else [],
            tags=args.tags.named(f"{spec.role}-nodes"),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*self._attachments, *args.before_compute],
                # The autoscaler owns the size from the first day on; the engine knows the property by its wire name.
                ignore_changes=["scalingConfig.desiredSize"],
            ),
        )
        if args.scale_to_zero_outside_hours:
            self._working_hours(group, spec)
        return group

    def _launch_template(self, spec: NodeGroupSpec) -> aws.ec2.LaunchTemplate:
        args = self._args
        return aws.ec2.LaunchTemplate(
            f"{self._name}-{spec.role}",
            description=f"Nodes of the {spec.role} service",
            update_default_version=True,
            vpc_security_group_ids=[self._security_group.id],
            user_data=user_data(spec.topology),
            ebs_optimized="true",
            monitoring=aws.ec2.LaunchTemplateMonitoringArgs(enabled=True),
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name="/dev/xvda",
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_type="gp3",
                        volume_size=spec.size.disk_gib,
                        encrypted="true",
                        kms_key_id=args.volumes_key_arn,
                        delete_on_termination="true",
                    ),
                )
            ],
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(
                    resource_type=kind, tags=args.tags.named(f"{spec.role}-node")
                )
                for kind in ("instance", "volume", "network-interface")
            ],
            tags=args.tags.named(f"{spec.role}-nodes"),
            opts=self._child,
        )

    def _working_hours(self, group: aws.eks.NodeGroup, spec: NodeGroupSpec) -> None:
        """No nodes at night and at weekends."""
        scaling_group = group.resources[0].autoscaling_groups[0].name.apply(lambda name: name or "")
        sizes = {"start": (spec.min_size, spec.max_size, spec.min_size), "stop": (0, 0, 0)}
        for action, (minimum, maximum, desired) in sizes.items():
            aws.autoscaling.Schedule(
                f"{self._name}-{spec.role}-{action}",
                scheduled_action_name=f"{spec.role}-{action}",
                autoscaling_group_name=scaling_group,
                min_size=minimum,
                max_size=maximum,
                desired_capacity=desired,
                recurrence=_WORKDAYS[action],
                time_zone=self._args.working_hours_time_zone,
                opts=self._child,
            )
