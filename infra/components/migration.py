"""The job that brings a service's database to the newest revision before the new version answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from app.contract import Env, ServiceContract
from infra.capacity import Amount
from infra.components.namespaces import Namespace
from infra.components.nodes import ROLE_LABEL
from infra.components.pods import TMP, ContainerSpec, FileMount, PodSpec, labels_of, pod_template, selector_of
from infra.components.service_account import SECRETS_DIRECTORY, ServiceAccount

MASTER_PASSWORD_FILE: Final = "DATABASE_OWNER_PASSWORD"  # noqa: S105 -- a file's name
_RESOURCES: Final = Amount(500, 512)
# libpq reads a password from its environment or a .pgpass, not from a file of the password alone.
_SCRIPT: Final = 'PGPASSWORD="$(cat "$SECRETS_DIR/{file}")" exec python -m app.service.migrations --database {database}'


@dataclass(frozen=True)
class MigrationArgs:
    """Which database, with which image, as whom."""

    contract: ServiceContract
    image: pulumi.Input[str]
    database_url: pulumi.Input[str]
    """Of the owner, without a password."""
    account: ServiceAccount
    node_role: str
    priority_class: str
    labels: Mapping[str, str]


class Migration(pulumi.ComponentResource):
    """A Job for each image: another image makes another Job, and the rollout waits for its success."""

    def __init__(self, name: str, args: MigrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Migration", name, None, opts)
        batch = kubernetes.batch.v1
        job_name = f"{name}-migration"
        batch.Job(
            job_name,
            # No name of its own: a Job cannot change, so that another image needs a Job beside the last one.
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                namespace=Namespace.APPLICATION.value, labels=labels_of(job_name, "migration", args.labels)
            ),
            spec=batch.JobSpecArgs(
                backoff_limit=3,
                active_deadline_seconds=900,
                ttl_seconds_after_finished=7 * 24 * 3600,
                template=pod_template(
                    labels_of(job_name, "migration", args.labels), selector_of(job_name), migration_pod(args)
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(args.account.ready),
                replace_on_changes=["spec.template"],
            ),
        )
        self.register_outputs({})


def migration_pod(args: MigrationArgs) -> PodSpec:
    """The job's pod: signs in as the owner, by the password that RDS rotates."""
    return PodSpec(
        container=ContainerSpec(
            name="migrate",
            image=args.image,
            resources=_RESOURCES,
            command=["/bin/sh", "-ec"],
            args=[_SCRIPT.format(file=MASTER_PASSWORD_FILE, database=args.contract.service)],
            environment={Env.DATABASE_URL: args.database_url, Env.SECRETS_DIR: SECRETS_DIRECTORY},
            files=[
                FileMount("secrets", SECRETS_DIRECTORY, secret_provider=args.account.secret_provider_class),
                FileMount("tmp", TMP, size_limit="64Mi"),
            ],
        ),
        service_account=args.account.name,
        priority_class=args.priority_class,
        node_selector={ROLE_LABEL: args.node_role},
        spread=False,
        drain_seconds=30,
        restart_policy="Never",
    )
