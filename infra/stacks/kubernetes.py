"""The Kubernetes half of the estate: what runs in the cluster, composed from the namespaces outwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Final

import pulumi

from app.contract import SERVICES, STRATEGIC, TACTICAL, Env, Service, ServiceContract
from infra.cidr_plan import Tier, plan_subnets
from infra.components import gateway
from infra.components.application_traffic import ApplicationTraffic, ApplicationTrafficArgs, Ranges
from infra.components.cache import PORT as CACHE_PORT
from infra.components.certificates import Authority, AuthorityArgs
from infra.components.cluster_services import ClusterServices, ClusterServicesArgs
from infra.components.database import MASTER_USERNAME
from infra.components.database import PORT as DATABASE_PORT
from infra.components.encryption import Purpose
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.iam import Statement
from infra.components.images import Images, ImagesArgs
from infra.components.kubernetes_provider import kubernetes_provider
from infra.components.load_balancer import Entry
from infra.components.maintenance import Maintenance, MaintenanceArgs
from infra.components.migration import MASTER_PASSWORD_FILE, MigrationArgs
from infra.components.namespaces import Namespace, Namespaces, NamespacesArgs
from infra.components.observability import Observability, ObservabilityArgs
from infra.components.priority_classes import JOB_PRIORITY, SERVICE_PRIORITY, PriorityClasses
from infra.components.registry import UPSTREAMS, Repository
from infra.components.secrets import SecretName
from infra.components.service_account import SECRETS_DIRECTORY, SecretFile, ServiceAccount, ServiceAccountArgs
from infra.components.service_workload import (
    DRAIN_SECONDS,
    TLS_DIRECTORY,
    Scale,
    ServiceWorkload,
    ServiceWorkloadArgs,
    process_environment,
)
from infra.components.storage import BucketName
from infra.settings import PROJECT
from infra.workload_sizing import Nodes, WorkloadSize, workload_sizes

if TYPE_CHECKING:
    from infra.stacks.estate import Estate

RDS_AUTHORITIES: Final = "/etc/ssl/rds/global-bundle.pem"
"""Amazon's authorities for RDS, which the images carry; they are in no distribution's bundle."""
_POOLS: Final[Mapping[Service, tuple[int, int]]] = {Service.STRATEGIC: (20, 30), Service.TACTICAL: (10, 20)}
"""Connections of one pod, and how many more under load."""
_SCALES: Final[Mapping[Service, tuple[int, int]]] = {Service.STRATEGIC: (70, 80), Service.TACTICAL: (60, 70)}
"""Percent of CPU and of memory above which there are more pods."""


class KubernetesLayer:
    """Everything inside the cluster of ``estate``."""

    def __init__(self, estate: Estate) -> None:
        self._estate, self._settings = estate, estate.settings
        self._stack = estate.nature.name
        self._labels = {"app.kubernetes.io/part-of": PROJECT, "app.kubernetes.io/managed-by": "pulumi"}
        provider = kubernetes_provider(
            "cluster", estate.cluster, region=self._settings.region, opts=estate.child_options
        )
        self._opts = pulumi.ResourceOptions.merge(
            estate.child_options, pulumi.ResourceOptions(providers=[*estate.providers, provider])
        )
        self.sizes = self._sizes()
        self._gpu = self._settings.gpu_nodes
        self.images = self._make_images()
        self.namespaces = Namespaces(
            "namespaces", NamespacesArgs(self._labels, self._settings.kubernetes_version), opts=self._after_nodes()
        )
        PriorityClasses("priority-classes", self._labels, opts=self._opts)
        self.cluster_services = self._make_cluster_services()
        self.authority = Authority("authority", AuthorityArgs(self.cluster_services.cert_manager), opts=self._opts)
        self.observability = self._make_observability()
        self._make_traffic()
        self._migration_account = self._account("migration", self._owner_secrets(), ())
        self._maintenance_account = self._account("maintenance", self._owner_secrets(), self._backup_statements())
        for contract in SERVICES:
            self._make_service(contract)
        self._make_gateway()

    def _after_nodes(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(
            self._opts, pulumi.ResourceOptions(depends_on=[self._estate.nodes, self._estate.addons])
        )

    def _sizes(self) -> Mapping[Service, WorkloadSize]:
        groups = {group.role: group for group in self._estate.node_groups}
        sized = {role: Nodes(group.size, group.min_size, group.max_size) for role, group in groups.items()}
        return workload_sizes(
            self._settings.profile,
            sized[STRATEGIC.service],
            sized.get(TACTICAL.service),
            [gateway.RESOURCES] * (gateway.MAX_REPLICAS + 1),
        )

    def _image_registries(self) -> Mapping[str, str]:
        settings = self._settings
        registry = f"{settings.account_id}.dkr.ecr.{settings.region}.amazonaws.com"
        return {upstream: f"{registry}/{PROJECT}/{self._stack}/{upstream}" for upstream in UPSTREAMS}

    def _make_images(self) -> Images:
        settings = self._settings
        digests = {
            Repository.STRATEGIC: settings.strategic_image_digest,
            Repository.TACTICAL: settings.tactical_image_digest,
            Repository.GATEWAY: settings.gateway_image_digest,
        }
        return Images(
            "images",
            ImagesArgs(
                repository_urls=self._estate.registry.repository_urls,
                build_arguments={Repository.TACTICAL: {"VARIANT": "cuda" if self._gpu else "cpu"}},
                digests={repository: digest for repository, digest in digests.items() if digest},
            ),
            opts=self._opts,
        )

    def _make_cluster_services(self) -> ClusterServices:
        settings = self._settings
        return ClusterServices(
            "cluster-services",
            ClusterServicesArgs(
                region=settings.region,
                kubernetes_version=settings.kubernetes_version,
                cluster_name=f"{PROJECT}-{self._stack}",
                vpc_id=self._estate.network.vpc_id,
                vpc_cidr=settings.vpc_cidr,
                service_cidr=settings.service_cidr,
                image_registries=self._image_registries(),
                node_role=STRATEGIC.service,
                has_gpu_nodes=self._gpu,
                ready=[self._estate.nodes, self._estate.addons, *self.namespaces.resources.values()],
            ),
            opts=self._opts,
        )

    def _make_observability(self) -> Observability:
        estate, settings = self._estate, self._settings
        return Observability(
            "observability",
            ObservabilityArgs(
                stack=self._stack,
                region=settings.region,
                account_id=settings.account_id,
                repository_url=f"https://github.com/{settings.github_repository}",
                cluster_name=estate.cluster.name,
                image_registries=self._image_registries(),
                topic_arn=estate.notifications.topic_arn,
                topic_key_arn=estate.encryption.key_arns[Purpose.NOTIFICATIONS],
                database_address=estate.database.address,
                cache_id=estate.cache.replication_group_id,
                cache_nodes=estate.nature.cache_replicas + 1,
                monitoring_password_arn=estate.secrets.arns[SecretName.MONITORING_PASSWORD],
                secrets_key_arn=estate.encryption.key_arns[Purpose.SECRETS],
                volumes_key_arn=estate.encryption.key_arns[Purpose.VOLUMES],
                ranges=self._ranges(),
                service_cidr=settings.service_cidr,
                has_gpu_nodes=self._gpu,
                node_role=STRATEGIC.service,
                issuer=self.authority.issuer,
                secret_provider=self.cluster_services.secret_provider,
                namespaces=[*self.namespaces.resources.values(), self._estate.addons],
                labels=self._labels,
                tags=estate.tags,
            ),
            opts=self._opts,
        )

    def _ranges(self) -> Ranges:
        settings = self._settings
        plan = plan_subnets(IPv4Network(settings.vpc_cidr), settings.availability_zones)

        def tier(wanted: Tier) -> list[str]:
            return [str(plan[wanted, zone]) for zone in settings.availability_zones]

        return Ranges(
            public=tier(Tier.PUBLIC),
            private=tier(Tier.PRIVATE),
            database=tier(Tier.DATABASE),
            cache=tier(Tier.CACHE),
            public_sources=settings.public_source_ranges,
            trusted_sources=settings.trusted_source_ranges,
        )

    def _make_traffic(self) -> None:
        ApplicationTraffic(
            "application-traffic",
            ApplicationTrafficArgs(self._ranges(), [self.namespaces.resources[Namespace.APPLICATION]]),
            opts=self._opts,
        )

    def _account(self, name: str, secrets: Sequence[SecretFile], statements: Sequence[Statement]) -> ServiceAccount:
        estate = self._estate
        return ServiceAccount(
            name,
            ServiceAccountArgs(
                account_id=self._settings.account_id,
                cluster_name=estate.cluster.name,
                namespace=Namespace.APPLICATION,
                secrets=secrets,
                secrets_key_arn=estate.encryption.key_arns[Purpose.SECRETS],
                labels=self._labels,
                tags=estate.tags,
                statements=statements,
                secret_provider=self.cluster_services.secret_provider,
            ),
            opts=pulumi.ResourceOptions.merge(
                self._opts,
                pulumi.ResourceOptions(depends_on=[self.namespaces.resources[Namespace.APPLICATION]]),
            ),
        )

    def _owner_secrets(self) -> Sequence[SecretFile]:
        return (
            SecretFile(MASTER_PASSWORD_FILE, self._estate.database.master_secret_arn, json_key="password"),
            SecretFile("GRANDMODEL_MONITORING_PASSWORD", self._estate.secrets.arns[SecretName.MONITORING_PASSWORD]),
        )

    def _service_secrets(self) -> Sequence[SecretFile]:
        arns = self._estate.secrets.arns
        return (
            SecretFile(Env.JWT_SECRET, arns[SecretName.JWT_SIGNING_KEY]),
            SecretFile(Env.SECRET_KEY, arns[SecretName.SESSION_KEY]),
        )

    def _service_statements(self, contract: ServiceContract) -> Sequence[Statement]:
        estate, settings, service = self._estate, self._settings, contract.service
        users = f"arn:aws:rds-db:{settings.region}:{settings.account_id}:dbuser:"
        statements = [
            Statement(
                "SignInToDatabase",
                actions=["rds-db:connect"],
                resources=[pulumi.Output.concat(users, estate.database.resource_id, f"/{service}_app")],
            ),
            Statement(
                "SignInToCache",
                actions=["elasticache:Connect"],
                resources=[estate.cache.arn, estate.cache.user_arns[service.value]],
            ),
        ]
        if service is Service.TACTICAL:
            statements += bucket_statements(
                estate.storage.bucket_arns[BucketName.MODELS], estate.encryption.key_arns[Purpose.STORAGE], "Models"
            )
        return statements

    def _backup_statements(self) -> Sequence[Statement]:
        estate = self._estate
        return bucket_statements(
            estate.storage.bucket_arns[BucketName.BACKUPS], estate.encryption.key_arns[Purpose.STORAGE], "Backups"
        )

    def _database_url(self, user: str, contract: ServiceContract) -> pulumi.Output[str]:
        """Without a password: services sign in by a token, jobs by the mounted secret."""
        return pulumi.Output.concat(
            f"postgresql://{user}@",
            self._estate.database.address,
            f":{DATABASE_PORT}/{contract.database}?sslmode=verify-full&sslrootcert={RDS_AUTHORITIES}",
        )

    def _environment(self, contract: ServiceContract, size: WorkloadSize) -> Mapping[str, pulumi.Input[str]]:
        """What the service is told; processes and threads come with its cores."""
        estate, service = self._estate, contract.service
        workers = int(process_environment(service, size.pod)["WORKERS"])
        pool, overflow = (max(1, connections // workers) for connections in _POOLS[service])
        cache_user = f"{PROJECT}-{self._stack}-{service}"
        environment: dict[str, pulumi.Input[str]] = {
            Env.ENVIRONMENT: self._stack,
            Env.LOG_LEVEL: "INFO",
            Env.DATABASE_URL: self._database_url(f"{service}_app", contract),
            Env.DATABASE_POOL_SIZE: str(pool),
            Env.DATABASE_POOL_MAX_OVERFLOW: str(overflow),
            Env.REDIS_URL: pulumi.Output.concat(
                f"rediss://{cache_user}@", estate.cache.primary_endpoint, f":{CACHE_PORT}/0"
            ),
            Env.CORS_ORIGINS: f"https://{self._settings.domain}",
            Env.SSL_ENABLED: "true",
            Env.SSL_CERT_PATH: f"{TLS_DIRECTORY}/tls.crt",
            Env.SSL_KEY_PATH: f"{TLS_DIRECTORY}/tls.key",
            Env.PROMETHEUS_ENABLED: "true",
            Env.HEALTH_CHECK_INTERVAL: "30",
            Env.DRAIN_SECONDS: str(DRAIN_SECONDS),
            Env.SECRETS_DIR: SECRETS_DIRECTORY,
            "AWS_REGION": self._settings.region,
            # Sign in by tokens of Pod Identity; the cache's tokens name its replication group.
            "DATABASE_IAM_REGION": self._settings.region,
            "REDIS_IAM_REPLICATION_GROUP": estate.cache.replication_group_id,
        }
        if service is Service.TACTICAL:
            environment |= {
                Env.TACTICAL_PERFORMANCE_TARGET: "1.0",
                Env.TACTICAL_TRAINING_EPISODES: "10",
                Env.TACTICAL_JIT_ENABLED: "true",
                Env.MODEL_STORE_URL: pulumi.Output.concat(
                    "s3://", estate.storage.bucket_names[BucketName.MODELS], "/tactical"
                ),
            }
        else:
            environment |= {Env.STRATEGIC_PERFORMANCE_TARGET: "12604", Env.STRATEGIC_MATRIX_SIZE: "48x13"}
        return environment

    def _make_service(self, contract: ServiceContract) -> None:
        service, size = contract.service, self.sizes[contract.service]
        image = self.images.references[Repository(service)]
        on_gpu = service is Service.TACTICAL and self._gpu
        owner_url = self._database_url(MASTER_USERNAME, contract)
        cpu, memory = _SCALES[service]
        ServiceWorkload(
            service.value,
            ServiceWorkloadArgs(
                contract=contract,
                image=image,
                resources=size.pod,
                scale=Scale(size.min_replicas, size.max_replicas, cpu, memory),
                surge=size.surge,
                node_role=TACTICAL.service if on_gpu else STRATEGIC.service,
                environment=self._environment(contract, size),
                migration=MigrationArgs(
                    contract=contract,
                    image=image,
                    database_url=owner_url,
                    account=self._migration_account,
                    node_role=STRATEGIC.service,
                    priority_class=JOB_PRIORITY,
                    labels=self._labels,
                ),
                account=self._account(service.value, self._service_secrets(), self._service_statements(contract)),
                issuer=self.authority.issuer,
                target_group_arn=self._estate.load_balancer.target_group_arns[Entry(service.value)],
                target_registration=self.cluster_services.load_balancer_controller,
                adapter=self.observability.adapter,
                priority_class=SERVICE_PRIORITY,
                labels=self._labels,
            ),
            opts=self._opts,
        )
        Maintenance(
            f"{service}-maintenance",
            MaintenanceArgs(
                contract=contract,
                # One image knows the operations of both databases; the tactical one is gigabytes of CUDA.
                image=self.images.references[Repository.STRATEGIC],
                database_url=owner_url,
                backup_bucket=self._estate.storage.bucket_names[BucketName.BACKUPS],
                account=self._maintenance_account,
                node_role=STRATEGIC.service,
                priority_class=JOB_PRIORITY,
                time_zone="Etc/UTC",
                labels=self._labels,
            ),
            opts=self._opts,
        )

    def _make_gateway(self) -> None:
        Gateway(
            "gateway",
            GatewayArgs(
                image=self.images.references[Repository.GATEWAY],
                account=self._account(gateway.NAME, (), ()),
                issuer=self.authority.issuer,
                target_group_arn=self._estate.load_balancer.target_group_arns[Entry.GATEWAY],
                target_registration=self.cluster_services.load_balancer_controller,
                node_role=STRATEGIC.service,
                priority_class=SERVICE_PRIORITY,
                labels=self._labels,
            ),
            opts=self._opts,
        )


def bucket_statements(bucket_arn: pulumi.Input[str], key_arn: pulumi.Input[str], what: str) -> list[Statement]:
    """Rights on the objects of one bucket and on the key that they are under."""
    return [
        Statement(f"List{what}", actions=["s3:ListBucket", "s3:GetBucketLocation"], resources=[bucket_arn]),
        Statement(
            f"Use{what}",
            actions=["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
            resources=[pulumi.Output.concat(bucket_arn, "/*")],
        ),
        Statement(f"Use{what}Key", actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key_arn]),
    ]
