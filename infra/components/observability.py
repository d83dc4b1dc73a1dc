"""Prometheus, Alertmanager and Grafana in the cluster, and the exporters that they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from app.contract import SERVICES, STRATEGIC
from infra.components import charts, gateway
from infra.components.application_traffic import Ranges
from infra.components.certificates import certificate_secret, host_names, workload_certificate
from infra.components.chart import RESTRICTED_CONTAINER, RESTRICTED_POD, ChartSpec, release, resources
from infra.components.cluster_services import GPU_SELECTOR, gpu_toleration
from infra.components.database import PORT as DATABASE_PORT
from infra.components.iam import Statement
from infra.components.namespaces import Namespace
from infra.components.network_policies import (
    DNS,
    NAME_LABEL,
    POD_IDENTITY,
    Addresses,
    Allow,
    Pods,
    allow,
    kubernetes_api,
)
from infra.components.nodes import ROLE_LABEL
from infra.components.service_account import SecretFile, ServiceAccount, ServiceAccountArgs
from infra.monitoring import adapter, alertmanager, cloudwatch, prometheus
from infra.monitoring.alerts import rule_groups
from infra.monitoring.dashboards import dashboards
from infra.tags import Tags

_TLS_DIRECTORY: Final = "/etc/prometheus/tls"
_STORAGE_CLASS: Final = "encrypted"
_PASSWORD_FILE: Final = "password"  # noqa: S105 -- a file's name
_PASSWORD_DIRECTORY: Final = "/run/secrets/postgres"  # noqa: S105 -- a directory
NODE_EXPORTER_PORT: Final = 9100
DCGM_PORT: Final = 9400
POSTGRES_EXPORTER_PORT: Final = 9187
CLOUDWATCH_EXPORTER_PORT: Final = 5000
PROMETHEUS_PORT: Final = 9090
ALERTMANAGER_PORT: Final = 9093
GRAFANA_PORT: Final = 3000
ADAPTER_PORT: Final = 6443


@dataclass(frozen=True)
class ObservabilityArgs:
    """What is watched, who is told, and what may be read."""

    stack: str
    region: str
    account_id: str
    repository_url: str
    cluster_name: pulumi.Input[str]
    image_registries: Mapping[str, str]
    topic_arn: pulumi.Input[str]
    topic_key_arn: pulumi.Input[str]
    database_address: pulumi.Input[str]
    cache_id: pulumi.Input[str]
    cache_nodes: int
    monitoring_password_arn: pulumi.Input[str]
    secrets_key_arn: pulumi.Input[str]
    volumes_key_arn: pulumi.Input[str]
    ranges: Ranges
    service_cidr: str
    has_gpu_nodes: bool
    node_role: str
    issuer: pulumi.Resource
    secret_provider: Sequence[pulumi.Resource]
    namespaces: Sequence[pulumi.Resource]
    labels: Mapping[str, str]
    tags: Tags


class Observability(pulumi.ComponentResource):
    """Charts with our configuration in them; accounts, rights and traffic are declared here, not by the charts."""

    adapter: pulumi.Resource
    """Serves the services' series to autoscalers."""

    def __init__(self, name: str, args: ObservabilityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Observability", name, None, opts)
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self, depends_on=list(args.namespaces))
        self._selector = {ROLE_LABEL: args.node_role}
        storage = self._storage_class()
        self._exporters()
        self._prometheus(storage)
        self.adapter = self._release(
            ChartSpec(charts.PROMETHEUS_ADAPTER, Namespace.MONITORING.value, self._adapter_values()),
            # Its certificate is cert-manager's, which must be there to give one.
            args.issuer,
        )
        self._grafana()
        self._traffic()
        self.register_outputs({})

    def _release(self, spec: ChartSpec, *after: pulumi.Resource) -> kubernetes.helm.v3.Release:
        return release(spec, opts=self._child, depends_on=after)

    def _account(
        self, name: str, statements: Sequence[Statement], secrets: Sequence[SecretFile] = ()
    ) -> ServiceAccount:
        args = self._args
        return ServiceAccount(
            name,
            ServiceAccountArgs(
                account_id=args.account_id,
                cluster_name=args.cluster_name,
                namespace=Namespace.MONITORING,
                secrets=secrets,
                secrets_key_arn=args.secrets_key_arn,
                labels=args.labels,
                tags=args.tags,
                statements=statements,
                secret_provider=args.secret_provider,
            ),
            opts=self._child,
        )

    def _storage_class(self) -> pulumi.Resource:
        return kubernetes.storage.v1.StorageClass(
            _STORAGE_CLASS,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name=_STORAGE_CLASS, labels=dict(self._args.labels)),
            provisioner="ebs.csi.aws.com",
            parameters={"type": "gp3", "encrypted": "true", "kmsKeyId": self._args.volumes_key_arn},
            volume_binding_mode="WaitForFirstConsumer",
            reclaim_policy="Delete",
            allow_volume_expansion=True,
            opts=self._child,
        )

    def _prometheus(self, storage: pulumi.Resource) -> None:
        args = self._args
        certificate = workload_certificate(
            "prometheus", Namespace.MONITORING, ["prometheus"], issuer=args.issuer, opts=self._child
        )
        account = self._prometheus_account()
        configuration = kubernetes.core.v1.ConfigMap(
            "prometheus-configuration",
            # The chart takes "<release>-<configMapOverrideName>".
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name="prometheus-configuration", namespace=Namespace.MONITORING.value, labels=dict(args.labels)
            ),
            data={
                "prometheus.yml": yaml.safe_dump(
                    prometheus.configuration(
                        scrape_jobs(has_gpu_nodes=args.has_gpu_nodes),
                        alertmanagers=[f"prometheus-alertmanager.{Namespace.MONITORING}.svc:{ALERTMANAGER_PORT}"],
                        external_labels={"stack": args.stack},
                    ),
                    sort_keys=False,
                ),
                prometheus.RULES_FILE: yaml.safe_dump(rule_groups(args.repository_url), sort_keys=False, width=120),
            },
            opts=self._child,
        )
        notifier = self._account(
            "alertmanager",
            [
                Statement("TellPeople", actions=["sns:Publish"], resources=[args.topic_arn]),
                Statement(
                    "UseTopicKey", actions=["kms:GenerateDataKey", "kms:Decrypt"], resources=[args.topic_key_arn]
                ),
            ],
        )
        self._release(
            ChartSpec(charts.PROMETHEUS, Namespace.MONITORING.value, self._prometheus_values()),
            storage,
            certificate,
            configuration,
            *account,
            *notifier.ready,
        )

    def _prometheus_account(self) -> list[pulumi.Resource]:
        """Prometheus finds pods of two namespaces and its own; it reads nothing else of the cluster."""
        rbac, meta = kubernetes.rbac.v1, kubernetes.meta.v1
        made: list[pulumi.Resource] = [
            kubernetes.core.v1.ServiceAccount(
                "prometheus",
                metadata=meta.ObjectMetaArgs(
                    name="prometheus", namespace=Namespace.MONITORING.value, labels=dict(self._args.labels)
                ),
                automount_service_account_token=False,
                opts=self._child,
            )
        ]
        for namespace in (Namespace.APPLICATION, Namespace.MONITORING, Namespace.NODE_AGENTS):
            metadata = meta.ObjectMetaArgs(
                name="prometheus-discovery", namespace=namespace.value, labels=dict(self._args.labels)
            )
            rule = rbac.PolicyRuleArgs(api_groups=[""], resources=["pods"], verbs=["get", "list", "watch"])
            made += [
                rbac.Role(f"prometheus-discovery-{namespace}", metadata=metadata, rules=[rule], opts=self._child),
                rbac.RoleBinding(
                    f"prometheus-discovery-{namespace}",
                    metadata=metadata,
                    role_ref=rbac.RoleRefArgs(
                        api_group="rbac.authorization.k8s.io", kind="Role", name="prometheus-discovery"
                    ),
                    subjects=[
                        rbac.SubjectArgs(kind="ServiceAccount", name="prometheus", namespace=Namespace.MONITORING.value)
                    ],
                    opts=self._child,
                ),
            ]
        return made

    def _prometheus_values(self) -> dict[str, Any]:
        args, quay = self._args, self._args.image_registries["quay"]
        return {
            "rbac": {"create": False},
            "serviceAccounts": {"server": {"create": False, "name": "prometheus"}},
            "configmapReload": {
                "prometheus": {
                    "image": {"repository": f"{quay}/prometheus-operator/prometheus-config-reloader"},
                    "containerSecurityContext": dict(RESTRICTED_CONTAINER),
                    "resources": resources("20m", "64Mi"),
                }
            },
            "server": {
                "image": {"repository": f"{quay}/prometheus/prometheus"},
                "configMapOverrideName": "configuration",
                # Discovery asks the API server; the account itself hands no token to whoever borrows it.
                "automountServiceAccountToken": True,
                "retention": "30d",
                "persistentVolume": {"size": "100Gi", "storageClass": _STORAGE_CLASS},
                "extraSecretMounts": [
                    {
                        "name": "tls",
                        "mountPath": _TLS_DIRECTORY,
                        "secretName": certificate_secret("prometheus"),
                        "readOnly": True,
                    }
                ],
                "securityContext": dict(RESTRICTED_POD),
                "containerSecurityContext": dict(RESTRICTED_CONTAINER),
                "nodeSelector": self._selector,
                "resources": resources("1", "4Gi"),
            },
            "alertmanager": {
                "image": {"repository": f"{quay}/prometheus/alertmanager"},
                "serviceAccount": {"create": False, "name": "alertmanager"},
                "automountServiceAccountToken": False,
                "replicaCount": 2,
                "persistence": {"enabled": False},
                "config": pulumi.Output.from_input(args.topic_arn).apply(
                    lambda arn: alertmanager.configuration(arn, args.region)
                ),
                "podSecurityContext": dict(RESTRICTED_POD),
                "securityContext": dict(RESTRICTED_CONTAINER),
                "nodeSelector": self._selector,
                "resources": resources("50m", "128Mi"),
            },
            "kube-state-metrics": {"enabled": False},
            "prometheus-node-exporter": {"enabled": False},
            "prometheus-pushgateway": {"enabled": False},
        }

    def _exporters(self) -> None:
        args, quay = self._args, self._args.image_registries["quay"]
        postgres = self._account("postgres-exporter", (), [SecretFile(_PASSWORD_FILE, args.monitoring_password_arn)])
        metrics_reader = self._account(
            "cloudwatch-exporter",
            [Statement("ReadMetrics", actions=["cloudwatch:GetMetricData"], resources=["*"])],
        )
        self._release(
            ChartSpec(
                charts.POSTGRES_EXPORTER,
                Namespace.MONITORING.value,
                self._postgres_exporter_values(quay),
            ),
            *postgres.ready,
        )
        clusters = [pulumi.Output.concat(args.cache_id, f"-{index:03d}") for index in range(1, args.cache_nodes + 1)]
        self._release(
            ChartSpec(
                charts.CLOUDWATCH_EXPORTER,
                Namespace.MONITORING.value,
                {
                    "fullnameOverride": "cloudwatch-exporter",
                    "image": {"registry": quay, "repository": "prometheuscommunity/yet-another-cloudwatch-exporter"},
                    "serviceAccount": {"create": False, "name": "cloudwatch-exporter"},
                    "config": pulumi.Output.all(*clusters).apply(
                        lambda names: yaml.safe_dump(cloudwatch.configuration(args.region, names), sort_keys=False)
                    ),
                    "podSecurityContext": dict(RESTRICTED_POD),
                    "securityContext": dict(RESTRICTED_CONTAINER),
                    "nodeSelector": self._selector,
                    "resources": resources("50m", "128Mi"),
                },
                release_name="cloudwatch-exporter",
            ),
            *metrics_reader.ready,
        )
        self._node_agents(quay)

    def _postgres_exporter_values(self, quay: str) -> dict[str, Any]:
        return {
            "image": {"registry": quay, "repository": "prometheuscommunity/postgres-exporter"},
            "serviceAccount": {"create": False, "name": "postgres-exporter"},
            "rbac": {"create": False},
            "automountServiceAccountToken": False,
            "config": {
                "datasource": {
                    "host": self._args.database_address,
                    "port": str(DATABASE_PORT),
                    "user": "grandmodel_monitoring",
                    # Where pg_stat_statements is installed; it tells of all databases.
                    "database": STRATEGIC.database,
                    "passwordFile": f"{_PASSWORD_DIRECTORY}/{_PASSWORD_FILE}",
                    "sslmode": "require",
                },
                "extraArgs": ["--collector.stat_statements"],
            },
            "extraVolumes": [
                {
                    "name": "password",
                    "csi": {
                        "driver": "secrets-store.csi.k8s.io",
                        "readOnly": True,
                        "volumeAttributes": {"secretProviderClass": "postgres-exporter"},
                    },
                }
            ],
            "extraVolumeMounts": [{"name": "password", "mountPath": _PASSWORD_DIRECTORY, "readOnly": True}],
            "podSecurityContext": dict(RESTRICTED_POD),
            "securityContext": dict(RESTRICTED_CONTAINER),
            "nodeSelector": self._selector,
            "resources": resources("50m", "128Mi"),
        }

    def _node_agents(self, quay: str) -> None:
        self._release(
            ChartSpec(
                charts.NODE_EXPORTER,
                Namespace.NODE_AGENTS.value,
                {
                    "image": {"registry": quay, "repository": "prometheus/node-exporter"},
                    "tolerations": [gpu_toleration()],
                    # Pods' addresses, not the host's: NetworkPolicies see them, and no port of the node is taken.
                    "hostNetwork": False,
                    "hostPID": False,
                    "service": {"port": NODE_EXPORTER_PORT},
                    "containerSecurityContext": dict(RESTRICTED_CONTAINER),
                    "resources": resources("50m", "64Mi"),
                },
            )
        )
        if self._args.has_gpu_nodes:
            self._release(
                ChartSpec(
                    charts.DCGM_EXPORTER,
                    Namespace.NODE_AGENTS.value,
                    {
                        "nodeSelector": dict(GPU_SELECTOR),
                        "tolerations": [gpu_toleration()],
                        "serviceMonitor": {"enabled": False},
                        "resources": resources("100m", "512Mi"),
                    },
                )
            )

    def _adapter_values(self) -> dict[str, Any]:
        return {
            "image": {
                "repository": f"{self._args.image_registries['kubernetes']}/prometheus-adapter/prometheus-adapter"
            },
            "replicas": 2,
            "listenPort": ADAPTER_PORT,
            "metricsRelistInterval": "30s",
            "prometheus": {"url": f"http://prometheus-server.{Namespace.MONITORING}.svc", "port": 80},
            "rules": {"default": False, "custom": adapter.rules()},
            # The API server checks the adapter's certificate.
            "certManager": {"enabled": True},
            "podDisruptionBudget": {"enabled": True, "maxUnavailable": 1},
            "podSecurityContext": {
                "fsGroup": 10001,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "nodeSelector": self._selector,
            "priorityClassName": "system-cluster-critical",
            "resources": resources("100m", "256Mi"),
        }

    def _grafana(self) -> None:
        """Dashboards for whoever may reach the cluster (``kubectl port-forward``): read-only, nobody signs in."""
        config = kubernetes.core.v1.ConfigMap(
            "grafana-dashboards",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name="grafana-dashboards", namespace=Namespace.MONITORING.value, labels=dict(self._args.labels)
            ),
            data=dict(dashboards()),
            opts=self._child,
        )
        source = {
            "name": "Prometheus",
            "uid": "prometheus",
            "type": "prometheus",
            "url": f"http://prometheus-server.{Namespace.MONITORING}.svc",
            "isDefault": True,
        }
        provider = {
            "name": "grandmodel",
            "type": "file",
            "disableDeletion": True,
            "editable": False,
            "options": {"path": "/var/lib/grafana/dashboards/grandmodel"},
        }
        self._release(
            ChartSpec(
                charts.GRAFANA,
                Namespace.MONITORING.value,
                {
                    "rbac": {"create": False},
                    "serviceAccount": {"create": True, "automountServiceAccountToken": False},
                    "automountServiceAccountToken": False,
                    # No administrator exists, so the chart has no password to make.
                    "env": {"GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true"},
                    "admin": {"existingSecret": "none"},
                    "grafana.ini": {
                        "auth": {"disable_login_form": True},
                        "auth.anonymous": {"enabled": True, "org_role": "Viewer"},
                        "analytics": {"check_for_updates": False, "reporting_enabled": False},
                        "users": {"viewers_can_edit": False},
                    },
                    "datasources": {"datasources.yaml": {"apiVersion": 1, "datasources": [source]}},
                    "dashboardProviders": {"dashboardproviders.yaml": {"apiVersion": 1, "providers": [provider]}},
                    "dashboardsConfigMaps": {"grandmodel": "grafana-dashboards"},
                    "testFramework": {"enabled": False},
                    "extraEmptyDirMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 -- in the container
                    "containerSecurityContext": dict(RESTRICTED_CONTAINER),
                    "nodeSelector": self._selector,
                    "resources": resources("250m", "512Mi"),
                },
            ),
            config,
        )

    def _traffic(self) -> None:
        """Monitoring talks within its namespace, reads what it scrapes, and calls two AWS APIs inside the VPC."""
        ranges = self._args.ranges
        aws_apis = Allow([Addresses(cidr) for cidr in ranges.private], [443])
        own = Pods(Namespace.MONITORING.value)
        own_ports = [
            PROMETHEUS_PORT, ALERTMANAGER_PORT, 9094, GRAFANA_PORT, POSTGRES_EXPORTER_PORT, CLOUDWATCH_EXPORTER_PORT,
        ]  # fmt: skip
        allow(
            "monitoring",
            Namespace.MONITORING,
            {},
            ingress=[Allow([own], own_ports)],
            egress=[*DNS, POD_IDENTITY, Allow([own], own_ports), aws_apis],
            opts=self._child,
        )
        scraped = [
            *(Allow([Pods(Namespace.APPLICATION.value, {NAME_LABEL: c.service})], [c.port]) for c in SERVICES),
            Allow([Pods(Namespace.APPLICATION.value, {NAME_LABEL: gateway.NAME})], [gateway.METRICS_PORT]),
            Allow([Pods(Namespace.NODE_AGENTS.value)], [NODE_EXPORTER_PORT, DCGM_PORT]),
        ]
        prometheus_label = {NAME_LABEL: charts.pod_name(charts.PROMETHEUS)}
        discovery = kubernetes_api(self._args.service_cidr, ranges.private)
        allow(
            "prometheus-scrapes",
            Namespace.MONITORING,
            prometheus_label,
            egress=[*scraped, discovery],
            opts=self._child,
        )
        allow(
            "postgres-exporter",
            Namespace.MONITORING,
            {NAME_LABEL: charts.pod_name(charts.POSTGRES_EXPORTER)},
            egress=[Allow([Addresses(cidr) for cidr in ranges.database], [DATABASE_PORT])],
            opts=self._child,
        )
        allow(
            "prometheus-adapter",
            Namespace.MONITORING,
            {NAME_LABEL: charts.pod_name(charts.PROMETHEUS_ADAPTER)},
            # The API server asks from its network interfaces in the private subnets.
            ingress=[Allow([Addresses(cidr) for cidr in ranges.private], [ADAPTER_PORT])],
            # It lets the API server judge who asks, and finds the pods that a series belongs to.
            egress=[discovery],
            opts=self._child,
        )
        prometheus_pods = Pods(Namespace.MONITORING.value, prometheus_label)
        allow(
            "node-agents",
            Namespace.NODE_AGENTS,
            {},
            ingress=[Allow([prometheus_pods], [NODE_EXPORTER_PORT, DCGM_PORT])],
            egress=[*DNS, aws_apis],
            opts=self._child,
        )


def scrape_jobs(*, has_gpu_nodes: bool) -> list[prometheus.ScrapeJob]:
    """What the cluster's Prometheus scrapes."""
    application, monitoring, agents = (
        Namespace.APPLICATION.value,
        Namespace.MONITORING.value,
        Namespace.NODE_AGENTS.value,
    )
    job, pods = prometheus.ScrapeJob, prometheus.PodDiscovery
    authority = f"{_TLS_DIRECTORY}/ca.crt"
    return [
        job("prometheus", prometheus.FixedTargets([f"localhost:{PROMETHEUS_PORT}"])),
        *(
            job(
                contract.service.value,
                pods(application, contract.service.value, contract.port),
                prometheus.SERVICE_SCRAPE_SECONDS,
                server_name=host_names(contract.service, Namespace.APPLICATION)[1],
                ca_file=authority,
            )
            for contract in SERVICES
        ),
        job(
            gateway.NAME,
            pods(application, gateway.NAME, gateway.METRICS_PORT),
            server_name=host_names(gateway.NAME, Namespace.APPLICATION)[1],
            ca_file=authority,
        ),
        job("postgresql", pods(monitoring, charts.pod_name(charts.POSTGRES_EXPORTER), POSTGRES_EXPORTER_PORT)),
        job("redis", pods(monitoring, charts.pod_name(charts.CLOUDWATCH_EXPORTER), CLOUDWATCH_EXPORTER_PORT)),
        job("node", pods(agents, charts.pod_name(charts.NODE_EXPORTER), NODE_EXPORTER_PORT)),
        *([job("dcgm", pods(agents, charts.pod_name(charts.DCGM_EXPORTER), DCGM_PORT))] if has_gpu_nodes else []),
    ]
