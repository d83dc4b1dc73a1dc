"""How pods join the load balancer's target groups: the balancer itself stays Pulumi's (pulumi-eks#1226)."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components.namespaces import Namespace


def target_group_binding(
    service: str, *, port: int, target_group_arn: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    """Register the pods behind ``service`` and ``port`` by address.

    No ``networking`` block: the rules between balancer and pods are the firewall component's.
    """
    return kubernetes.apiextensions.CustomResource(
        f"{service}-targets",
        api_version="elbv2.k8s.aws/v1beta1",
        kind="TargetGroupBinding",
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=service, namespace=Namespace.APPLICATION.value),
        spec={
            "serviceRef": {"name": service, "port": port},
            "targetGroupARN": target_group_arn,
            "targetType": "ip",
            "ipAddressType": "ipv4",
        },
        opts=opts,
    )
