"""The namespaces, their Pod Security, and the silence that every pod in them starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from app.contract import NAMESPACE

_PRIVILEGED: Final = "privileged"
_RESTRICTED: Final = "restricted"


class Namespace(StrEnum):
    """Where what runs."""

    APPLICATION = NAMESPACE
    """The two services, the gateway and their jobs."""
    MONITORING = "monitoring"
    CERTIFICATES = "cert-manager"
    NODE_AGENTS = "node-agents"
    """Node exporter, GPU plugin and DCGM exporter: they read the host's devices and files, nothing else may."""


_WAIT_FOR_BALANCER: Final = {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
"""A new pod counts as ready only when the load balancer sends it traffic: before that no old one may go."""
POD_SECURITY: Final[Mapping[Namespace, str]] = {
    Namespace.APPLICATION: _RESTRICTED,
    Namespace.MONITORING: _RESTRICTED,
    Namespace.CERTIFICATES: _RESTRICTED,
    Namespace.NODE_AGENTS: _PRIVILEGED,
}


@dataclass(frozen=True)
class NamespacesArgs:
    """Labels that every namespace carries, and the version of Pod Security that judges its pods."""

    labels: Mapping[str, str]
    kubernetes_version: str


class Namespaces(pulumi.ComponentResource):
    """Namespaces under Pod Security, each denying all traffic until a NetworkPolicy allows some."""

    resources: Mapping[Namespace, kubernetes.core.v1.Namespace]

    def __init__(self, name: str, args: NamespacesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Namespaces", name, None, opts)
        self._child = pulumi.ResourceOptions(parent=self)
        self.resources = {namespace: self._namespace(name, namespace, args) for namespace in Namespace}
        for namespace, resource in self.resources.items():
            self._deny_all(name, namespace, resource)
        self.register_outputs({})

    def _namespace(self, name: str, namespace: Namespace, args: NamespacesArgs) -> kubernetes.core.v1.Namespace:
        level = POD_SECURITY[namespace]
        return kubernetes.core.v1.Namespace(
            f"{name}-{namespace}",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=namespace.value,
                labels={
                    **args.labels,
                    **{f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")},
                    "pod-security.kubernetes.io/enforce-version": f"v{args.kubernetes_version}",
                    **(_WAIT_FOR_BALANCER if namespace is Namespace.APPLICATION else {}),
                },
            ),
            opts=self._child,
        )

    def _deny_all(self, name: str, namespace: Namespace, resource: kubernetes.core.v1.Namespace) -> None:
        kubernetes.networking.v1.NetworkPolicy(
            f"{name}-{namespace}-deny-all",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name="deny-all", namespace=namespace.value),
            spec=kubernetes.networking.v1.NetworkPolicySpecArgs(
                pod_selector=kubernetes.meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[resource]),
        )
