"""TLS between pods: an authority of the cluster's own, and a certificate for each workload, renewed by cert-manager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components.namespaces import Namespace

API_VERSION: Final = "cert-manager.io/v1"
AUTHORITY: Final = "grandmodel-authority"
"""Cluster issuer that signs every workload's certificate."""
_SELF_SIGNED: Final = "grandmodel-self-signed"
_TEN_YEARS: Final = "87600h"
_ONE_YEAR: Final = "8760h"
_THREE_MONTHS: Final = "2160h"
_ONE_MONTH: Final = "720h"


@dataclass(frozen=True)
class AuthorityArgs:
    """What must run before an authority can be asked for."""

    cert_manager: pulumi.Resource


class Authority(pulumi.ComponentResource):
    """A self-signed authority whose key never leaves the cluster; ``ca.crt`` in a workload's Secret is its trust."""

    issuer: pulumi.Resource

    def __init__(self, name: str, args: AuthorityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Authority", name, None, opts)
        root = self._object(f"{name}-self-signed", "ClusterIssuer", _SELF_SIGNED, {"selfSigned": {}}, args.cert_manager)
        certificate = kubernetes.apiextensions.CustomResource(
            f"{name}-root",
            api_version=API_VERSION,
            kind="Certificate",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name=AUTHORITY, namespace=Namespace.CERTIFICATES.value),
            spec={
                "isCA": True,
                "commonName": AUTHORITY,
                "secretName": AUTHORITY,
                "duration": _TEN_YEARS,
                "renewBefore": _ONE_YEAR,
                "privateKey": {"algorithm": "ECDSA", "size": 384, "rotationPolicy": "Always"},
                "issuerRef": {"name": _SELF_SIGNED, "kind": "ClusterIssuer", "group": "cert-manager.io"},
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[root]),
        )
        self.issuer = self._object(
            f"{name}-issuer", "ClusterIssuer", AUTHORITY, {"ca": {"secretName": AUTHORITY}}, certificate
        )
        self.register_outputs({})

    def _object(
        self, logical_name: str, kind: str, name: str, spec: dict[str, Any], after: pulumi.Resource
    ) -> pulumi.Resource:
        return kubernetes.apiextensions.CustomResource(
            logical_name,
            api_version=API_VERSION,
            kind=kind,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name),
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[after]),
        )


def workload_certificate(
    name: str,
    namespace: Namespace,
    services: Sequence[str],
    *,
    issuer: pulumi.Resource,
    opts: pulumi.ResourceOptions,
) -> pulumi.Resource:
    """Certificate for ``services`` of ``namespace`` in the Secret :func:`certificate_secret`, for both ends of TLS.

    Three months long, renewed a month before its end; whoever mounts it must read it anew.
    """
    return kubernetes.apiextensions.CustomResource(
        f"{name}-certificate",
        api_version=API_VERSION,
        kind="Certificate",
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=namespace.value),
        spec={
            "secretName": certificate_secret(name),
            "dnsNames": [host for service in services for host in host_names(service, namespace)],
            "duration": _THREE_MONTHS,
            "renewBefore": _ONE_MONTH,
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "usages": ["digital signature", "server auth", "client auth"],
            "issuerRef": {"name": AUTHORITY, "kind": "ClusterIssuer", "group": "cert-manager.io"},
        },
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[issuer])),
    )


def certificate_secret(name: str) -> str:
    """Secret with ``tls.crt``, ``tls.key`` and ``ca.crt`` of a workload."""
    return f"{name}-tls"


def host_names(service: str, namespace: Namespace) -> list[str]:
    """Names under which pods of the cluster reach a Service."""
    return [service, f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"]
