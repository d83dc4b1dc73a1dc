"""One of the two services as Kubernetes runs it: rollout, address, scale and the disruptions it bears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from app.contract import HEALTH_PATH, READY_PATH, Env, Service, ServiceContract
from infra.capacity import Amount
from infra.components.certificates import certificate_secret, workload_certificate
from infra.components.load_balancer import LEAVING_SECONDS
from infra.components.migration import Migration, MigrationArgs
from infra.components.namespaces import Namespace
from infra.components.nodes import GPU_TAINT_KEY, GPU_TAINT_VALUE, ROLE_LABEL
from infra.components.pods import (
    TMP,
    ContainerSpec,
    FileMount,
    PodSpec,
    Probes,
    labels_of,
    pod_template,
    selector_of,
)
from infra.components.service_account import SECRETS_DIRECTORY, ServiceAccount
from infra.components.target_group_binding import target_group_binding

TLS_DIRECTORY: Final = "/run/tls"
DRAIN_SECONDS: Final = 15
"""The pod keeps answering this long after it has become unready: two failed health checks of the load balancer.

A pod that Kubernetes ends has been forgotten before; this is for one that is told to end by anything else.
"""
REQUEST_SECONDS: Final = 30
"""Longest request that a leaving pod finishes."""


@dataclass(frozen=True)
class Scale:
    """How many replicas, and the load at which there are more. Utilisation in percent of the requests."""

    min_replicas: int
    max_replicas: int
    cpu_percent: int
    memory_percent: int


@dataclass(frozen=True)
class ServiceWorkloadArgs:
    """What one service is given."""

    contract: ServiceContract
    image: pulumi.Input[str]
    resources: Amount
    scale: Scale
    surge: bool
    """Whether a rollout may run one pod more than asked for; without it, one pod less."""
    node_role: str
    environment: Mapping[str, pulumi.Input[str]]
    migration: MigrationArgs
    account: ServiceAccount
    issuer: pulumi.Resource
    target_group_arn: pulumi.Input[str]
    target_registration: pulumi.Resource
    """The AWS Load Balancer Controller."""
    adapter: pulumi.Resource
    """What serves the application's metric to the autoscaler."""
    priority_class: str
    labels: Mapping[str, str]


class ServiceWorkload(pulumi.ComponentResource):
    """Migration, then Deployment; Service, target group, autoscaler and disruption budget around it."""

    def __init__(self, name: str, args: ServiceWorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:ServiceWorkload", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._labels = labels_of(name, "service", args.labels)
        certificate = workload_certificate(name, Namespace.APPLICATION, [name], issuer=args.issuer, opts=self._child)
        migration = Migration(name, args.migration, opts=self._child)
        deployment = self._deployment([certificate, migration, *args.account.ready])
        service = self._service()
        target_group_binding(
            name,
            port=args.contract.port,
            target_group_arn=args.target_group_arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[service, args.target_registration]),
        )
        self._autoscaler(deployment)
        self._disruption_budget()
        self.register_outputs({})

    def _metadata(self) -> kubernetes.meta.v1.ObjectMetaArgs:
        return kubernetes.meta.v1.ObjectMetaArgs(
            name=self._name, namespace=Namespace.APPLICATION.value, labels=self._labels
        )

    def _deployment(self, before: Sequence[pulumi.Resource]) -> kubernetes.apps.v1.Deployment:
        args, apps = self._args, kubernetes.apps.v1
        selector = selector_of(self._name)
        return apps.Deployment(
            self._name,
            metadata=self._metadata(),
            spec=apps.DeploymentSpecArgs(
                selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=selector),
                min_ready_seconds=5,
                progress_deadline_seconds=900,
                revision_history_limit=5,
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(
                        max_surge=1 if args.surge else 0, max_unavailable=0 if args.surge else 1
                    ),
                ),
                template=pod_template(self._labels, selector, self._pod()),
            ),
            # The autoscaler owns the number of replicas (pulumi-kubernetes#2491).
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(before), ignore_changes=["spec.replicas"]),
        )

    def _pod(self) -> PodSpec:
        args = self._args
        toleration = kubernetes.core.v1.TolerationArgs(
            key=GPU_TAINT_KEY, operator="Equal", value=GPU_TAINT_VALUE, effect="NoSchedule"
        )
        return PodSpec(
            container=ContainerSpec(
                name=self._name,
                image=args.image,
                resources=args.resources,
                environment={**args.environment, **process_environment(args.contract.service, args.resources)},
                files=[
                    FileMount("tls", TLS_DIRECTORY, secret=certificate_secret(self._name)),
                    FileMount("secrets", SECRETS_DIRECTORY, secret_provider=args.account.secret_provider_class),
                    FileMount("tmp", TMP, size_limit="1Gi"),
                    FileMount("shared-memory", "/dev/shm", size_limit="256Mi", in_memory=True),  # noqa: S108
                ],
                ports={"https": args.contract.port},
                probes=Probes(args.contract.port, HEALTH_PATH, READY_PATH),
                # It serves on until the load balancer has forgotten it; the gateway has by then for long.
                pre_stop_seconds=LEAVING_SECONDS,
            ),
            service_account=args.account.name,
            priority_class=args.priority_class,
            node_selector={ROLE_LABEL: args.node_role},
            tolerations=[toleration] if args.resources.gpus else [],
            drain_seconds=DRAIN_SECONDS + REQUEST_SECONDS,
        )

    def _service(self) -> kubernetes.core.v1.Service:
        """Headless: the gateway and Prometheus find the pods themselves, each its own way of spreading."""
        core = kubernetes.core.v1
        return core.Service(
            self._name,
            metadata=self._metadata(),
            spec=core.ServiceSpecArgs(
                type="ClusterIP",
                cluster_ip="None",
                selector=selector_of(self._name),
                ports=[
                    core.ServicePortArgs(
                        name="https", port=self._args.contract.port, target_port="https", app_protocol="https"
                    )
                ],
            ),
            opts=self._child,
        )

    def _autoscaler(self, deployment: pulumi.Resource) -> None:
        args, autoscaling = self._args, kubernetes.autoscaling.v2
        scale = args.scale

        def utilisation(resource: str, percent: int) -> kubernetes.autoscaling.v2.MetricSpecArgs:
            target = autoscaling.MetricTargetArgs(type="Utilization", average_utilization=percent)
            return autoscaling.MetricSpecArgs(
                type="Resource", resource=autoscaling.ResourceMetricSourceArgs(name=resource, target=target)
            )

        application = autoscaling.MetricSpecArgs(
            type="Pods",
            pods=autoscaling.PodsMetricSourceArgs(
                metric=autoscaling.MetricIdentifierArgs(name=args.contract.autoscaling_metric),
                target=autoscaling.MetricTargetArgs(
                    type="AverageValue", average_value=args.contract.autoscaling_target
                ),
            ),
        )
        autoscaling.HorizontalPodAutoscaler(
            self._name,
            metadata=self._metadata(),
            spec=autoscaling.HorizontalPodAutoscalerSpecArgs(
                scale_target_ref=autoscaling.CrossVersionObjectReferenceArgs(
                    api_version="apps/v1", kind="Deployment", name=self._name
                ),
                min_replicas=scale.min_replicas,
                max_replicas=scale.max_replicas,
                metrics=[
                    utilisation("cpu", scale.cpu_percent),
                    utilisation("memory", scale.memory_percent),
                    application,
                ],
                behavior=autoscaling.HorizontalPodAutoscalerBehaviorArgs(
                    scale_up=_at_most("Pods", 2, window=0), scale_down=_at_most("Percent", 25, window=300)
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[deployment, args.adapter]),
        )

    def _disruption_budget(self) -> None:
        policy = kubernetes.policy.v1
        policy.PodDisruptionBudget(
            self._name,
            metadata=self._metadata(),
            spec=policy.PodDisruptionBudgetSpecArgs(
                max_unavailable=1,
                selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=selector_of(self._name)),
                # A pod that is not ready serves nobody: it must not hold up the drain of a node.
                unhealthy_pod_eviction_policy="AlwaysAllow",
            ),
            opts=self._child,
        )


def _at_most(kind: str, value: int, *, window: int) -> kubernetes.autoscaling.v2.HPAScalingRulesArgs:
    """At most ``value`` (pods or percent) a minute, after ``window`` seconds of the same wish."""
    autoscaling = kubernetes.autoscaling.v2
    return autoscaling.HPAScalingRulesArgs(
        stabilization_window_seconds=window,
        select_policy="Max",
        policies=[autoscaling.HPAScalingPolicyArgs(type=kind, value=value, period_seconds=60)],
    )


def process_environment(service: Service, resources: Amount) -> dict[str, str]:
    """Processes and threads out of the same number of cores that the pod owns.

    The strategic service runs one process for every two cores, each with an engine on its share of them; the tactical
    one is a single process whose trainings use all.
    """
    cores = resources.millicores // 1000
    workers = max(1, cores // 2) if service is Service.STRATEGIC else 1
    threads = max(1, cores // workers)
    return {
        "WORKERS": str(workers),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        **(
            {
                Env.STRATEGIC_PROCESSING_THREADS: str(threads),
                Env.STRATEGIC_MEMORY_LIMIT: f"{resources.mebibytes}Mi",
            }
            if service is Service.STRATEGIC
            else {}
        ),
    }
