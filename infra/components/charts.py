"""The third parties' charts that the cluster runs: where each comes from, and what the estate relies on in it.

``make charts`` compares this table with the charts' own repositories and renders each with the values that the estate
passes (:mod:`ops.charts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Chart:
    """One chart at one version."""

    name: str
    repository: str
    version: str
    app_version: str
    """What the chart runs; its repository's index says the same."""
    documentation: str
    pods: Sequence[str] = ()
    """Values of ``app.kubernetes.io/name`` on its pods that NetworkPolicies and scrape jobs select."""


_COMMUNITY: Final = "https://prometheus-community.github.io/helm-charts"
_COMMUNITY_SOURCES: Final = "https://github.com/prometheus-community/helm-charts/tree/main/charts"

LOAD_BALANCER_CONTROLLER: Final = Chart(
    "aws-load-balancer-controller",
    "https://aws.github.io/eks-charts",
    "1.17.1",
    "v2.17.1",
    "https://github.com/aws/eks-charts/tree/master/stable/aws-load-balancer-controller",
    ["aws-load-balancer-controller"],
)
CLUSTER_AUTOSCALER: Final = Chart(
    "cluster-autoscaler",
    "https://kubernetes.github.io/autoscaler",
    "9.53.0",
    "1.34.2",
    "https://github.com/kubernetes/autoscaler/tree/master/cluster-autoscaler/charts/cluster-autoscaler",
)
AUTOSCALER_PATCHES: Final[Mapping[str, int]] = {"1.33": 6, "1.34": 5, "1.35": 2, "1.36": 1}
"""Newest patch of the autoscaler for a minor version of Kubernetes; others get the first."""
SECRETS_STORE_DRIVER: Final = Chart(
    "secrets-store-csi-driver",
    "https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts",
    "1.5.6",
    "1.5.6",
    "https://secrets-store-csi-driver.sigs.k8s.io/getting-started/installation",
    ["secrets-store-csi-driver"],
)
SECRETS_STORE_PROVIDER: Final = Chart(
    "secrets-store-csi-driver-provider-aws",
    "https://aws.github.io/secrets-store-csi-driver-provider-aws",
    "2.2.2",
    "",
    "https://github.com/aws/secrets-store-csi-driver-provider-aws",
    ["secrets-store-csi-driver-provider-aws"],
)
CERT_MANAGER: Final = Chart(
    "cert-manager",
    "https://charts.jetstack.io",
    "v1.20.3",
    "v1.20.3",
    "https://cert-manager.io/docs/installation/helm",
    ["cert-manager", "webhook", "cainjector"],
)
DEVICE_PLUGIN: Final = Chart(
    "nvidia-device-plugin",
    "https://nvidia.github.io/k8s-device-plugin",
    "0.19.3",
    "0.19.3",
    "https://github.com/NVIDIA/k8s-device-plugin",
    ["nvidia-device-plugin"],
)
DCGM_EXPORTER: Final = Chart(
    "dcgm-exporter",
    "https://nvidia.github.io/dcgm-exporter/helm-charts",
    "4.8.2",
    "4.8.2",
    "https://github.com/NVIDIA/dcgm-exporter",
    ["dcgm-exporter"],
)
PROMETHEUS: Final = Chart(
    "prometheus", _COMMUNITY, "29.27.0", "v3.14.0", f"{_COMMUNITY_SOURCES}/prometheus", ["prometheus", "alertmanager"]
)
PROMETHEUS_ADAPTER: Final = Chart(
    "prometheus-adapter",
    _COMMUNITY,
    "5.3.0",
    "v0.12.0",
    f"{_COMMUNITY_SOURCES}/prometheus-adapter",
    ["prometheus-adapter"],
)
NODE_EXPORTER: Final = Chart(
    "prometheus-node-exporter",
    _COMMUNITY,
    "4.56.1",
    "1.12.1",
    f"{_COMMUNITY_SOURCES}/prometheus-node-exporter",
    ["prometheus-node-exporter"],
)
POSTGRES_EXPORTER: Final = Chart(
    "prometheus-postgres-exporter",
    _COMMUNITY,
    "8.2.0",
    "v0.20.1",
    f"{_COMMUNITY_SOURCES}/prometheus-postgres-exporter",
    ["prometheus-postgres-exporter"],
)
CLOUDWATCH_EXPORTER: Final = Chart(
    "prometheus-yet-another-cloudwatch-exporter",
    _COMMUNITY,
    "0.47.0",
    "v0.67.0",
    f"{_COMMUNITY_SOURCES}/prometheus-yet-another-cloudwatch-exporter",
    ["prometheus-yet-another-cloudwatch-exporter"],
)
GRAFANA: Final = Chart(
    "grafana",
    "https://grafana-community.github.io/helm-charts",
    "11.6.1",
    "12.4.3",
    "https://github.com/grafana-community/helm-charts/tree/main/charts/grafana",
    ["grafana"],
)

ALL: Final[Sequence[Chart]] = (
    LOAD_BALANCER_CONTROLLER,
    CLUSTER_AUTOSCALER,
    SECRETS_STORE_DRIVER,
    SECRETS_STORE_PROVIDER,
    CERT_MANAGER,
    DEVICE_PLUGIN,
    DCGM_EXPORTER,
    PROMETHEUS,
    PROMETHEUS_ADAPTER,
    NODE_EXPORTER,
    POSTGRES_EXPORTER,
    CLOUDWATCH_EXPORTER,
    GRAFANA,
)


def pod_name(chart: Chart) -> str:
    """The name on the pods of a chart that has one kind of pod, or on its principal ones."""
    return chart.pods[0]
