"""What the cluster itself needs to run: load balancing, node scaling, secrets, certificates, GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components import charts
from infra.components.chart import RESTRICTED_CONTAINER, ChartSpec, release, resources
from infra.components.namespaces import Namespace
from infra.components.network_policies import DNS, Addresses, Allow, allow, kubernetes_api
from infra.components.nodes import GPU_TAINT_KEY, GPU_TAINT_VALUE, ROLE_LABEL

SYSTEM: Final = "kube-system"
GPU_SELECTOR: Final[Mapping[str, str]] = {"nvidia.com/gpu.present": "true"}
_CERT_MANAGER_WEBHOOK_PORT: Final = 10250


def gpu_toleration() -> dict[str, str]:
    """Toleration of the one taint of GPU nodes, for charts' values."""
    return {"key": GPU_TAINT_KEY, "operator": "Equal", "value": GPU_TAINT_VALUE, "effect": "NoSchedule"}


@dataclass(frozen=True)
class ClusterServicesArgs:
    """What the charts need to know."""

    region: str
    kubernetes_version: str
    cluster_name: str
    vpc_id: pulumi.Input[str]
    vpc_cidr: str
    service_cidr: str
    image_registries: Mapping[str, str]
    """Prefix of our registry for each upstream of the pull-through cache."""
    node_role: str
    has_gpu_nodes: bool
    ready: Sequence[pulumi.Resource]
    """Nodes, add-ons and namespaces."""


class ClusterServices(pulumi.ComponentResource):
    """Pinned charts; each is something that others wait for."""

    load_balancer_controller: pulumi.Resource
    secret_provider: Sequence[pulumi.Resource]
    cert_manager: pulumi.Resource

    def __init__(self, name: str, args: ClusterServicesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:ClusterServices", name, None, opts)
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self.load_balancer_controller = self._release(load_balancer_controller(args))
        self._release(cluster_autoscaler(args))
        driver = self._release(secrets_store_driver(args))
        self.secret_provider = [driver, self._release(secrets_store_aws_provider(args), driver)]
        # The controller's webhook judges every Service and Pod: what follows waits for it.
        self.cert_manager = self._release(cert_manager(args), self.load_balancer_controller)
        self._cert_manager_traffic()
        if args.has_gpu_nodes:
            self._release(device_plugin())
        self.register_outputs({})

    def _release(self, spec: ChartSpec, *after: pulumi.Resource) -> kubernetes.helm.v3.Release:
        return release(spec, opts=self._child, depends_on=[*self._args.ready, *after])

    def _cert_manager_traffic(self) -> None:
        allow(
            "cert-manager",
            Namespace.CERTIFICATES,
            {},
            # The API server calls the webhook from its network interfaces in the private subnets.
            ingress=[Allow([Addresses(self._args.vpc_cidr)], [_CERT_MANAGER_WEBHOOK_PORT])],
            egress=[*DNS, kubernetes_api(self._args.service_cidr, [self._args.vpc_cidr])],
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._args.ready)),
        )


def load_balancer_controller(args: ClusterServicesArgs) -> ChartSpec:
    """Registers pods in our target groups. It makes no balancer, no security group rule and watches no Ingress."""
    return ChartSpec(
        charts.LOAD_BALANCER_CONTROLLER,
        SYSTEM,
        {
            "clusterName": args.cluster_name,
            "region": args.region,
            "vpcId": args.vpc_id,
            "image": {"repository": f"{args.image_registries['public-ecr']}/eks/aws-load-balancer-controller"},
            "replicaCount": 2,
            "createIngressClassResource": False,
            "enableServiceMutatorWebhook": False,
            "enableShield": False,
            "enableWaf": False,
            "enableWafv2": False,
            "disableIngressClassAnnotation": True,
            "keepTLSSecret": True,
            "serviceAccount": {"create": True, "name": "aws-load-balancer-controller"},
            "nodeSelector": {ROLE_LABEL: args.node_role},
            "podDisruptionBudget": {"maxUnavailable": 1},
            "priorityClassName": "system-cluster-critical",
            "securityContext": dict(RESTRICTED_CONTAINER),
            "resources": resources("100m", "128Mi"),
        },
    )


def cluster_autoscaler(args: ClusterServicesArgs) -> ChartSpec:
    """Grows and shrinks the node groups, which it finds by the tags that EKS puts on them."""
    return ChartSpec(
        charts.CLUSTER_AUTOSCALER,
        SYSTEM,
        {
            "fullnameOverride": "cluster-autoscaler",
            "awsRegion": args.region,
            "autoDiscovery": {"clusterName": args.cluster_name},
            "image": {
                "repository": f"{args.image_registries['kubernetes']}/autoscaling/cluster-autoscaler",
                # Its scheduler must be the cluster's own minor version.
                "tag": f"v{args.kubernetes_version}.{charts.AUTOSCALER_PATCHES.get(args.kubernetes_version, 0)}",
            },
            "extraArgs": {
                "balance-similar-node-groups": True,
                "expander": "least-waste",
                "scale-down-unneeded-time": "10m",
                "skip-nodes-with-system-pods": False,
                "skip-nodes-with-local-storage": False,
            },
            "rbac": {"serviceAccount": {"create": True, "name": "cluster-autoscaler"}},
            "nodeSelector": {ROLE_LABEL: args.node_role},
            "priorityClassName": "system-cluster-critical",
            "containerSecurityContext": dict(RESTRICTED_CONTAINER),
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1001, "runAsGroup": 1001},
            "resources": resources("100m", "512Mi"),
        },
    )


def secrets_store_driver(args: ClusterServicesArgs) -> ChartSpec:
    """Mounts secrets into pods as files; it never copies one into a Kubernetes Secret."""
    registry = args.image_registries["kubernetes"]
    return ChartSpec(
        charts.SECRETS_STORE_DRIVER,
        SYSTEM,
        {
            "syncSecret": {"enabled": False},
            "enableSecretRotation": True,
            "rotationPollInterval": "5m",
            # Pod Identity hands the provider a token of the pod's own service account.
            "tokenRequests": [{"audience": "pods.eks.amazonaws.com"}],
            "linux": {
                "image": {"repository": f"{registry}/csi-secrets-store/driver"},
                "crds": {"image": {"repository": f"{registry}/csi-secrets-store/driver-crds"}},
                "registrarImage": {"repository": f"{registry}/sig-storage/csi-node-driver-registrar"},
                "livenessProbeImage": {"repository": f"{registry}/sig-storage/livenessprobe"},
                "tolerations": [gpu_toleration()],
                "priorityClassName": "system-node-critical",
            },
        },
    )


def secrets_store_aws_provider(args: ClusterServicesArgs) -> ChartSpec:
    """Reads Secrets Manager for the driver, with the rights of the pod that mounts."""
    image = f"{args.image_registries['public-ecr']}/aws-secrets-manager/secrets-store-csi-driver-provider-aws"
    return ChartSpec(
        charts.SECRETS_STORE_PROVIDER,
        SYSTEM,
        {
            "image": {"repository": image},
            "secrets-store-csi-driver": {"install": False},
            "tolerations": [gpu_toleration()],
            "priorityClassName": "system-node-critical",
            "resources": resources("50m", "100Mi"),
        },
    )


def cert_manager(args: ClusterServicesArgs) -> ChartSpec:
    """Issues and renews the pods' certificates."""
    registry = f"{args.image_registries['quay']}/jetstack"
    selector = {ROLE_LABEL: args.node_role}
    common: dict[str, Any] = {"nodeSelector": selector, "resources": resources("50m", "128Mi")}
    return ChartSpec(
        charts.CERT_MANAGER,
        Namespace.CERTIFICATES.value,
        {
            **common,
            "crds": {"enabled": True, "keep": True},
            "image": {"repository": f"{registry}/cert-manager-controller"},
            "webhook": {
                **common,
                "image": {"repository": f"{registry}/cert-manager-webhook"},
                "securePort": _CERT_MANAGER_WEBHOOK_PORT,
            },
            "cainjector": {**common, "image": {"repository": f"{registry}/cert-manager-cainjector"}},
            "acmesolver": {"image": {"repository": f"{registry}/cert-manager-acmesolver"}},
            "startupapicheck": {
                **common,
                "image": {"repository": f"{registry}/cert-manager-startupapicheck"},
            },
            "global": {"priorityClassName": "system-cluster-critical"},
        },
    )


def device_plugin() -> ChartSpec:
    """Tells the kubelet of its GPUs. NVIDIA's registry has no pull-through cache: the image comes from there."""
    return ChartSpec(
        charts.DEVICE_PLUGIN,
        Namespace.NODE_AGENTS.value,
        {
            "nodeSelector": dict(GPU_SELECTOR),
            "tolerations": [gpu_toleration()],
            # Whole GPUs beside pinned cores: both come from the same NUMA node.
            "compatWithCPUManager": True,
            "failOnInitError": True,
            "gfd": {"enabled": False},
            "resources": resources("50m", "64Mi"),
        },
    )
