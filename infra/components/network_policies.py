"""Which pods may speak to whom: every allowance of the cluster in one form, on top of each namespace's denial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components.namespaces import Namespace

NAME_LABEL: Final = "app.kubernetes.io/name"
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
_KUBERNETES_API_PORT: Final = 443


@dataclass(frozen=True)
class Pods:
    """Pods by namespace and label; without labels, all pods of the namespace."""

    namespace: str
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Addresses:
    """A range of addresses outside the cluster's pods."""

    cidr: str
    but_not: Sequence[str] = ()


Peer = Pods | Addresses


@dataclass(frozen=True)
class Allow:
    """Traffic with ``peers`` on ``ports``."""

    peers: Sequence[Peer]
    ports: Sequence[int]
    protocol: str = "TCP"


DNS: Final = (
    Allow([Pods("kube-system", {"k8s-app": "kube-dns"})], [53], "UDP"),
    Allow([Pods("kube-system", {"k8s-app": "kube-dns"})], [53], "TCP"),
)
POD_IDENTITY: Final = Allow([Addresses("169.254.170.23/32")], [80])
"""EKS Pod Identity's agent on the node hands out credentials at this address (EKS user guide)."""


def kubernetes_api(service_cidr: str, interfaces: Sequence[str]) -> Allow:
    """The API server: its Service, which is the first address of ``service_cidr``, and its ``interfaces`` behind it.

    Whether a policy sees a connection before or after the Service's address is translated is not defined (Kubernetes,
    "Network Policies", ipBlock), so both are allowed.
    """
    service = next(IPv4Network(service_cidr).hosts())
    return Allow([Addresses(f"{service}/32"), *(Addresses(cidr) for cidr in interfaces)], [_KUBERNETES_API_PORT])


def allow(
    name: str,
    namespace: Namespace,
    selector: Mapping[str, str],
    *,
    ingress: Sequence[Allow] = (),
    egress: Sequence[Allow] = (),
    opts: pulumi.ResourceOptions,
) -> kubernetes.networking.v1.NetworkPolicy:
    """A NetworkPolicy for the pods of ``namespace`` that ``selector`` matches; empty means all of them."""
    args = kubernetes.networking.v1
    return args.NetworkPolicy(
        name,
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=namespace.value),
        spec=args.NetworkPolicySpecArgs(
            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=dict(selector) or None),
            policy_types=["Ingress", "Egress"],
            ingress=[args.NetworkPolicyIngressRuleArgs(from_=_peers(rule), ports=_ports(rule)) for rule in ingress],
            egress=[args.NetworkPolicyEgressRuleArgs(to=_peers(rule), ports=_ports(rule)) for rule in egress],
        ),
        opts=opts,
    )


def _ports(rule: Allow) -> list[kubernetes.networking.v1.NetworkPolicyPortArgs]:
    return [kubernetes.networking.v1.NetworkPolicyPortArgs(port=port, protocol=rule.protocol) for port in rule.ports]


def _peers(rule: Allow) -> list[kubernetes.networking.v1.NetworkPolicyPeerArgs]:
    return [_peer(peer) for peer in rule.peers]


def _peer(peer: Peer) -> kubernetes.networking.v1.NetworkPolicyPeerArgs:
    args, selector = kubernetes.networking.v1, kubernetes.meta.v1.LabelSelectorArgs
    if isinstance(peer, Addresses):
        block = args.IPBlockArgs(cidr=peer.cidr, except_=list(peer.but_not) or None)
        return args.NetworkPolicyPeerArgs(ip_block=block)
    return args.NetworkPolicyPeerArgs(
        namespace_selector=selector(match_labels={_NAMESPACE_LABEL: peer.namespace}),
        pod_selector=selector(match_labels=dict(peer.labels)) if peer.labels else None,
    )
