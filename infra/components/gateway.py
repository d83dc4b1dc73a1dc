"""The gateway: nginx between the load balancer and both services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from app.contract import HEALTH_PATH, METRICS_PATH, READY_PATH, SERVICES, Service
from infra.capacity import Amount
from infra.components.certificates import certificate_secret, host_names, workload_certificate
from infra.components.load_balancer import GATEWAY_PORT, LEAVING_SECONDS
from infra.components.namespaces import Namespace
from infra.components.nodes import ROLE_LABEL
from infra.components.pods import TMP, ContainerSpec, FileMount, PodSpec, Probes, labels_of, pod_template, selector_of
from infra.components.service_account import ServiceAccount
from infra.components.service_workload import REQUEST_SECONDS, TLS_DIRECTORY
from infra.components.target_group_binding import target_group_binding
from infra.gateway.nginx import GatewayConfig, Upstream, render

NAME: Final = "gateway"
REDIRECT_PORT: Final = 8080
METRICS_PORT: Final = 9443
RESOURCES: Final = Amount(millicores=1000, mebibytes=512)
MIN_REPLICAS: Final = 2
MAX_REPLICAS: Final = 4
_CONFIG_DIRECTORY: Final = "/etc/gateway"
_CLUSTER_DNS: Final = "kube-dns.kube-system.svc.cluster.local"


def gateway_config() -> GatewayConfig:
    """The configuration as the cluster runs it: pods are found by their Services' names, asked again every 5 s."""
    namespace = Namespace.APPLICATION
    return GatewayConfig(
        upstreams=[
            Upstream(
                name=contract.service.value,
                api_prefix=contract.api_prefix,
                servers=[f"{host_names(contract.service, namespace)[-1]}:{contract.port}"],
                server_name=host_names(contract.service, namespace)[1],
                streaming_prefix=f"{contract.api_prefix}/jobs/" if contract.service is Service.TACTICAL else None,
            )
            for contract in SERVICES
        ],
        tls_directory=TLS_DIRECTORY,
        https_port=GATEWAY_PORT,
        http_port=REDIRECT_PORT,
        private_port=METRICS_PORT,
        worker_processes=RESOURCES.millicores // 1000,
        resolver=_CLUSTER_DNS,
    )


@dataclass(frozen=True)
class GatewayArgs:
    """What the gateway needs to know."""

    image: pulumi.Input[str]
    account: ServiceAccount
    issuer: pulumi.Resource
    target_group_arn: pulumi.Input[str]
    target_registration: pulumi.Resource
    node_role: str
    priority_class: str
    labels: Mapping[str, str]


class Gateway(pulumi.ComponentResource):
    """Deployment of nginx with the rendered configuration, its Service, target group, autoscaler and budget."""

    def __init__(self, name: str, args: GatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Gateway", name, None, opts)
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self._labels = labels_of(NAME, "gateway", args.labels)
        self._metadata = kubernetes.meta.v1.ObjectMetaArgs(
            name=NAME, namespace=Namespace.APPLICATION.value, labels=self._labels
        )
        certificate = workload_certificate(NAME, Namespace.APPLICATION, [NAME], issuer=args.issuer, opts=self._child)
        # Named by Pulumi: another text is another ConfigMap, and its name in the Deployment rolls the pods.
        configuration = kubernetes.core.v1.ConfigMap(
            f"{NAME}-configuration",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(namespace=Namespace.APPLICATION.value, labels=self._labels),
            data={"nginx.conf": render(gateway_config())},
            immutable=True,
            opts=self._child,
        )
        deployment = self._deployment(configuration, certificate)
        service = self._service()
        target_group_binding(
            NAME,
            port=GATEWAY_PORT,
            target_group_arn=args.target_group_arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[service, args.target_registration]),
        )
        self._scale(deployment)
        self.register_outputs({})

    def _deployment(
        self, configuration: kubernetes.core.v1.ConfigMap, certificate: pulumi.Resource
    ) -> kubernetes.apps.v1.Deployment:
        args, apps, selector = self._args, kubernetes.apps.v1, selector_of(NAME)
        pod = PodSpec(
            container=ContainerSpec(
                name="nginx",
                image=args.image,
                resources=RESOURCES,
                files=[
                    FileMount("configuration", _CONFIG_DIRECTORY, config_map=configuration.metadata.name),
                    FileMount("tls", TLS_DIRECTORY, secret=certificate_secret(NAME)),
                    FileMount("tmp", TMP, size_limit="2Gi"),
                ],
                ports={"https": GATEWAY_PORT, "http": REDIRECT_PORT, "metrics": METRICS_PORT},
                probes=Probes(GATEWAY_PORT, HEALTH_PATH, READY_PATH),
                pre_stop_seconds=LEAVING_SECONDS,
            ),
            service_account=args.account.name,
            priority_class=args.priority_class,
            node_selector={ROLE_LABEL: args.node_role},
            drain_seconds=REQUEST_SECONDS,
        )
        return apps.Deployment(
            NAME,
            metadata=self._metadata,
            spec=apps.DeploymentSpecArgs(
                selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=selector),
                min_ready_seconds=5,
                progress_deadline_seconds=300,
                revision_history_limit=5,
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=pod_template(
                    self._labels, selector, pod, {"prometheus.io/path": METRICS_PATH, "prometheus.io/scheme": "https"}
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[certificate, *args.account.ready], ignore_changes=["spec.replicas"]
            ),
        )

    def _service(self) -> kubernetes.core.v1.Service:
        core = kubernetes.core.v1
        ports = {"https": GATEWAY_PORT, "http": REDIRECT_PORT, "metrics": METRICS_PORT}
        return core.Service(
            NAME,
            metadata=self._metadata,
            spec=core.ServiceSpecArgs(
                type="ClusterIP",
                cluster_ip="None",
                selector=selector_of(NAME),
                ports=[core.ServicePortArgs(name=name, port=port, target_port=name) for name, port in ports.items()],
            ),
            opts=self._child,
        )

    def _scale(self, deployment: pulumi.Resource) -> None:
        autoscaling, policy = kubernetes.autoscaling.v2, kubernetes.policy.v1
        autoscaling.HorizontalPodAutoscaler(
            NAME,
            metadata=self._metadata,
            spec=autoscaling.HorizontalPodAutoscalerSpecArgs(
                scale_target_ref=autoscaling.CrossVersionObjectReferenceArgs(
                    api_version="apps/v1", kind="Deployment", name=NAME
                ),
                min_replicas=MIN_REPLICAS,
                max_replicas=MAX_REPLICAS,
                metrics=[
                    autoscaling.MetricSpecArgs(
                        type="Resource",
                        resource=autoscaling.ResourceMetricSourceArgs(
                            name="cpu",
                            target=autoscaling.MetricTargetArgs(type="Utilization", average_utilization=60),
                        ),
                    )
                ],
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[deployment]),
        )
        policy.PodDisruptionBudget(
            NAME,
            metadata=self._metadata,
            spec=policy.PodDisruptionBudgetSpecArgs(
                max_unavailable=1,
                selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=selector_of(NAME)),
                unhealthy_pod_eviction_policy="AlwaysAllow",
            ),
            opts=self._child,
        )
