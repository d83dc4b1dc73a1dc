"""The estate: the components, composed. It reads from the outside in: keys, network, way in, compute, data, watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from app.contract import SERVICES, STRATEGIC, TACTICAL
from infra.cidr_plan import Tier
from infra.components.addons import CLOUDWATCH, COREDNS, EBS_CSI, METRICS_SERVER, Addons, AddonsArgs
from infra.components.backup import Backup, BackupArgs
from infra.components.budget import Budget, BudgetArgs
from infra.components.cache import PORT as CACHE_PORT
from infra.components.cache import Cache, CacheArgs
from infra.components.cluster import Cluster, ClusterArgs
from infra.components.database import PORT as DATABASE_PORT
from infra.components.database import Database, DatabaseArgs
from infra.components.delivery import Delivery, DeliveryArgs
from infra.components.encryption import Encryption, EncryptionArgs, Purpose
from infra.components.firewall import Firewall, FirewallArgs, Group
from infra.components.load_balancer import LoadBalancer, LoadBalancerArgs
from infra.components.monitoring import Monitoring, MonitoringArgs
from infra.components.network import Network, NetworkArgs
from infra.components.node_bootstrap import TopologyPolicy
from infra.components.nodes import NodeGroupSpec, Nodes, NodesArgs
from infra.components.notifications import Notifications, NotificationsArgs
from infra.components.registry import Registry, RegistryArgs, Repository
from infra.components.secrets import Secrets, SecretsArgs
from infra.components.storage import BucketName, Storage, StorageArgs
from infra.settings import PROJECT, DataClass, Settings
from infra.sizing import SIZINGS, NodeSize, Sizing
from infra.stacks.kubernetes import KubernetesLayer
from infra.stacks.nature import StackNature
from infra.tags import Tags

_CPU_AMI: Final = "AL2023_x86_64_STANDARD"
_GPU_AMI: Final = "AL2023_x86_64_NVIDIA"


class Estate:
    """Everything that one stack declares.

    Each method makes one layer out of the layers before it; nothing here asks whether it is previewed or deployed.
    """

    outputs: Mapping[str, pulumi.Input[Any]]

    def __init__(self, settings: Settings, nature: StackNature) -> None:
        self._settings, self._nature = settings, nature
        self._tags = Tags(PROJECT, nature.name, settings.owner, settings.cost_centre, settings.data_class)
        self._data_tags = self._tags.holding(DataClass.RESTRICTED)
        self._sizing: Sizing = SIZINGS[settings.profile]
        self._provider = aws.Provider(
            "aws",
            region=settings.region,
            allowed_account_ids=[settings.account_id],
            default_tags=aws.ProviderDefaultTagsArgs(tags={"managed-by": "pulumi"}),
        )
        self._opts = pulumi.ResourceOptions(providers=[self._provider])

        self.encryption = self._make_encryption()
        self.notifications = self._make_notifications()
        self.network = self._make_network()
        self.storage = self._make_storage()
        self.load_balancer = self._make_load_balancer()
        self.registry = self._make_registry()
        self.secrets = self._make_secrets()
        self.cluster = self._make_cluster()
        self.node_groups = self._node_groups()
        self.nodes = self._make_nodes()
        self.addons = self._make_addons()
        self.database = self._make_database()
        self.cache = self._make_cache()
        self.firewall = self._make_firewall()
        self.backup = self._make_backup()
        self.monitoring = self._make_monitoring()
        self.budget = Budget(
            "budget",
            BudgetArgs(settings.monthly_budget_usd, self.notifications.topic_arn, self._tags),
            opts=self._opts,
        )
        self.delivery = Delivery("delivery", DeliveryArgs(settings.github_repository, self._tags), opts=self._opts)
        self.kubernetes = KubernetesLayer(self)
        self.outputs = self._outputs()

    @property
    def settings(self) -> Settings:
        """The stack's configuration."""
        return self._settings

    @property
    def nature(self) -> StackNature:
        """What the stack is built for."""
        return self._nature

    @property
    def tags(self) -> Tags:
        """The tags of whatever holds no data of clients."""
        return self._tags

    @property
    def child_options(self) -> pulumi.ResourceOptions:
        """Options of everything in the estate: its own AWS provider."""
        return self._opts

    @property
    def providers(self) -> list[pulumi.ProviderResource]:
        """The estate's own providers, for who adds another."""
        return [self._provider]

    def _key(self, purpose: Purpose) -> pulumi.Output[str]:
        return self.encryption.key_arns[purpose]

    def _make_encryption(self) -> Encryption:
        return Encryption(
            "encryption",
            EncryptionArgs(
                region=self._settings.region,
                account_id=self._settings.account_id,
                deletion_window_days=self._nature.key_deletion_days,
                protect=self._nature.deletion_protection,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_notifications(self) -> Notifications:
        return Notifications(
            "notifications",
            NotificationsArgs(
                account_id=self._settings.account_id,
                key_arn=self._key(Purpose.NOTIFICATIONS),
                emails=self._settings.alarm_emails,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_network(self) -> Network:
        return Network(
            "network",
            NetworkArgs(
                region=self._settings.region,
                account_id=self._settings.account_id,
                vpc_cidr=self._settings.vpc_cidr,
                availability_zones=self._settings.availability_zones,
                nat_gateways=self._nature.nat_gateways,
                logs_key_arn=self._key(Purpose.LOGS),
                log_retention_days=self._nature.log_retention_days,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_storage(self) -> Storage:
        return Storage(
            "storage",
            StorageArgs(
                region=self._settings.region,
                account_id=self._settings.account_id,
                key_arn=self._key(Purpose.STORAGE),
                protect=self._nature.deletion_protection,
                tags=self._data_tags,
            ),
            opts=self._opts,
        )

    def _make_load_balancer(self) -> LoadBalancer:
        return LoadBalancer(
            "entry",
            LoadBalancerArgs(
                vpc_id=self.network.vpc_id,
                subnet_ids=self.network.subnet_ids[Tier.PUBLIC],
                domain=self._settings.domain,
                hosted_zone_id=self._settings.hosted_zone_id,
                public_source_ranges=self._settings.public_source_ranges,
                trusted_source_ranges=self._settings.trusted_source_ranges,
                access_log_bucket=self.storage.bucket_names[BucketName.LOAD_BALANCER_LOGS],
                access_log_ready=[self.storage.bucket_policies[BucketName.LOAD_BALANCER_LOGS]],
                deletion_protection=self._nature.deletion_protection,
                topic_arn=self.notifications.topic_arn,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_registry(self) -> Registry:
        return Registry(
            "registry",
            RegistryArgs(
                region=self._settings.region,
                account_id=self._settings.account_id,
                key_arn=self._key(Purpose.REGISTRY),
                protect=self._nature.deletion_protection,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_secrets(self) -> Secrets:
        return Secrets(
            "secrets",
            SecretsArgs(
                region=self._settings.region,
                account_id=self._settings.account_id,
                key_arn=self._key(Purpose.SECRETS),
                recovery_window_days=self._nature.secret_recovery_days,
                logs_key_arn=self._key(Purpose.LOGS),
                log_retention_days=self._nature.log_retention_days,
                protect=self._nature.deletion_protection,
                tags=self._data_tags,
            ),
            opts=self._opts,
        )

    def _addon_versions(self) -> Mapping[str, str]:
        settings = self._settings
        return {
            "vpc-cni": settings.addon_vpc_cni,
            "kube-proxy": settings.addon_kube_proxy,
            "eks-pod-identity-agent": settings.addon_pod_identity_agent,
            COREDNS: settings.addon_coredns,
            EBS_CSI: settings.addon_ebs_csi,
            METRICS_SERVER: settings.addon_metrics_server,
            CLOUDWATCH: settings.addon_cloudwatch_observability,
        }

    def _make_cluster(self) -> Cluster:
        settings = self._settings
        return Cluster(
            "cluster",
            ClusterArgs(
                account_id=settings.account_id,
                vpc_id=self.network.vpc_id,
                private_subnet_ids=self.network.subnet_ids[Tier.PRIVATE],
                service_cidr=settings.service_cidr,
                kubernetes_version=settings.kubernetes_version,
                addon_versions=self._addon_versions(),
                admin_role_arns=settings.cluster_admin_role_arns,
                viewer_role_arns=settings.cluster_viewer_role_arns,
                public_access_cidrs=settings.cluster_public_access_cidrs,
                secrets_key_arn=self._key(Purpose.CLUSTER),
                logs_key_arn=self._key(Purpose.LOGS),
                log_retention_days=self._nature.log_retention_days,
                deletion_protection=self._nature.deletion_protection,
                protect=self._nature.deletion_protection,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _node_groups(self) -> list[NodeGroupSpec]:
        settings, nature = self._settings, self._nature
        groups = [
            NodeGroupSpec(
                role=STRATEGIC.service,
                size=_with_instance_type(self._sizing.cpu_node, settings.cpu_instance_type),
                ami_type=_CPU_AMI,
                ami_release=settings.cpu_ami_release,
                min_size=nature.cpu_nodes[0],
                max_size=nature.cpu_nodes[1],
                topology=TopologyPolicy.BEST_EFFORT,
            )
        ]
        if settings.gpu_nodes:
            groups.append(
                NodeGroupSpec(
                    role=TACTICAL.service,
                    size=_with_instance_type(self._sizing.gpu_node, settings.gpu_instance_type),
                    ami_type=_GPU_AMI,
                    ami_release=settings.gpu_ami_release,
                    min_size=nature.gpu_nodes[0],
                    max_size=nature.gpu_nodes[1],
                    topology=TopologyPolicy.SINGLE_NUMA_NODE,
                    gpu=True,
                )
            )
        return groups

    def _make_nodes(self) -> Nodes:
        return Nodes(
            "nodes",
            NodesArgs(
                cluster_name=self.cluster.name,
                kubernetes_version=self._settings.kubernetes_version,
                before_compute=self.cluster.before_compute,
                vpc_id=self.network.vpc_id,
                subnet_ids=self.network.subnet_ids[Tier.PRIVATE],
                groups=self.node_groups,
                volumes_key_arn=self._key(Purpose.VOLUMES),
                scale_to_zero_outside_hours=self._settings.scale_to_zero_outside_hours,
                working_hours_time_zone=self._settings.working_hours_time_zone,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_addons(self) -> Addons:
        return Addons(
            "addons",
            AddonsArgs(
                region=self._settings.region,
                account_id=self._settings.account_id,
                cluster_name=self.cluster.name,
                addon_versions=self._addon_versions(),
                compute=list(self.nodes.groups.values()),
                volumes_key_arn=self._key(Purpose.VOLUMES),
                target_group_arns=list(self.load_balancer.target_group_arns.values()),
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_database(self) -> Database:
        nature = self._nature
        return Database(
            "database",
            DatabaseArgs(
                account_id=self._settings.account_id,
                vpc_id=self.network.vpc_id,
                subnet_ids=self.network.subnet_ids[Tier.DATABASE],
                instance_class=self._sizing.database_instance_class,
                storage_gib=self._sizing.database_storage_gib,
                multi_az=nature.database_multi_az,
                backup_retention_days=nature.database_backup_days,
                performance_insights_days=nature.performance_insights_days,
                deletion_protection=nature.deletion_protection,
                protect=nature.deletion_protection,
                storage_key_arn=self._key(Purpose.DATABASE),
                secrets_key_arn=self._key(Purpose.SECRETS),
                logs_key_arn=self._key(Purpose.LOGS),
                log_retention_days=nature.log_retention_days,
                topic_arn=self.notifications.topic_arn,
                tags=self._data_tags,
            ),
            opts=self._opts,
        )

    def _make_cache(self) -> Cache:
        nature = self._nature
        return Cache(
            "cache",
            CacheArgs(
                vpc_id=self.network.vpc_id,
                subnet_ids=self.network.subnet_ids[Tier.CACHE],
                node_type=self._sizing.cache_node_type,
                replicas=nature.cache_replicas,
                snapshot_retention_days=nature.cache_snapshot_days,
                protect=nature.deletion_protection,
                key_arn=self._key(Purpose.CACHE),
                logs_key_arn=self._key(Purpose.LOGS),
                log_retention_days=nature.log_retention_days,
                topic_arn=self.notifications.topic_arn,
                tags=self._data_tags,
            ),
            opts=self._opts,
        )

    def _make_firewall(self) -> Firewall:
        return Firewall(
            "firewall",
            FirewallArgs(
                groups={
                    Group.LOAD_BALANCER: self.load_balancer.security_group_id,
                    Group.CONTROL_PLANE: self.cluster.security_group_id,
                    Group.NODES: self.nodes.security_group_id,
                    Group.ENDPOINTS: self.network.endpoint_security_group_id,
                    Group.DATABASE: self.database.security_group_id,
                    Group.CACHE: self.cache.security_group_id,
                },
                target_ports=list(self.load_balancer.target_ports.values()),
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _make_backup(self) -> Backup:
        return Backup(
            "backup",
            BackupArgs(
                account_id=self._settings.account_id,
                key_arn=self._key(Purpose.BACKUP),
                resources={
                    "database": self.database.arn,
                    "models": self.storage.bucket_arns[BucketName.MODELS],
                    "backups": self.storage.bucket_arns[BucketName.BACKUPS],
                },
                database_arn=self.database.arn,
                retention_days=self._nature.backup_retention_days,
                compliance_lock=self._nature.backup_compliance_lock,
                protect=self._nature.deletion_protection,
                topic_arn=self.notifications.topic_arn,
                tags=self._data_tags,
            ),
            opts=self._opts,
        )

    def _make_monitoring(self) -> Monitoring:
        return Monitoring(
            "monitoring",
            MonitoringArgs(
                region=self._settings.region,
                cluster_name=self.cluster.name,
                database_identifier=self.database.identifier,
                cache_id=self.cache.replication_group_id,
                has_gpu_nodes=self._settings.gpu_nodes,
                logs_key_arn=self._key(Purpose.LOGS),
                log_retention_days=self._nature.log_retention_days,
                topic_arn=self.notifications.topic_arn,
                tags=self._tags,
            ),
            opts=self._opts,
        )

    def _outputs(self) -> Mapping[str, pulumi.Input[Any]]:
        domain = self._settings.domain
        return {
            "stack": self._nature.name,
            "region": self._settings.region,
            "vpc_id": self.network.vpc_id,
            "private_subnet_ids": list(self.network.subnet_ids[Tier.PRIVATE]),
            "nat_public_ips": list(self.network.nat_public_ips),
            "node_security_group_id": self.nodes.security_group_id,
            "api_url": f"https://{domain}",
            "strategic_url": f"https://{domain}:{STRATEGIC.port}",
            "tactical_url": f"https://{domain}:{TACTICAL.port}",
            "load_balancer_dns_name": self.load_balancer.dns_name,
            "cluster_name": self.cluster.name,
            "cluster_endpoint": self.cluster.endpoint,
            "cluster_certificate_authority": self.cluster.certificate_authority,
            "database_endpoint": self.database.address,
            "database_port": DATABASE_PORT,
            "database_engine_version": self.database.engine_version,
            "database_master_secret_arn": self.database.master_secret_arn,
            "cache_endpoint": self.cache.primary_endpoint,
            "cache_port": CACHE_PORT,
            "repository_urls": {
                c.service.value: self.registry.repository_urls[Repository(c.service)] for c in SERVICES
            },
            "bucket_names": {bucket.value: name for bucket, name in self.storage.bucket_names.items()},
            "key_arns": {purpose.value: arn for purpose, arn in self.encryption.key_arns.items()},
            "secret_arns": {secret.value: arn for secret, arn in self.secrets.arns.items()},
            "alert_topic_arn": self.notifications.topic_arn,
            "backup_vault_arn": self.backup.vault_arn,
            "preview_role_arn": self.delivery.preview_role_arn,
        }


def _with_instance_type(size: NodeSize, instance_type: str | None) -> NodeSize:
    return size if instance_type is None else NodeSize(instance_type, size.vcpus, size.memory_gib, size.disk_gib)
