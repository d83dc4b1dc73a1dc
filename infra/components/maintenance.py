"""What runs by the calendar: statistics and retention every day, a dump of both databases every week."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from app.contract import Env, ServiceContract
from infra.capacity import Amount
from infra.components.migration import MASTER_PASSWORD_FILE
from infra.components.namespaces import Namespace
from infra.components.nodes import ROLE_LABEL
from infra.components.pods import TMP, ContainerSpec, FileMount, PodSpec, labels_of, pod_template, selector_of
from infra.components.service_account import SECRETS_DIRECTORY, ServiceAccount

_RESOURCES: Final = Amount(500, 2048)
_DUMP_SPACE: Final = "50Gi"


@dataclass(frozen=True)
class Task:
    """A Python module with its arguments, and when it runs, in UTC."""

    label: str
    schedule: str
    command: str
    deadline_seconds: int


def tasks(contract: ServiceContract) -> Sequence[Task]:
    """The tasks of one service's database, each service half an hour after the other's."""
    minute = 0 if contract.port % 2 == 0 else 30
    database = contract.service
    return (
        # Hands a rotated password on to its role; the migration itself finds nothing to do.
        Task("roles", "*/10 * * * *", f"app.service.migrations --database {database}", 600),
        # VACUUM (ANALYZE): space and statistics in one pass.
        Task("vacuum", f"{minute} 4 * * *", f"ops maintain {database} --no-retention", 3 * 3600),
        Task("retention", f"{minute} 6 * * *", f"ops maintain {database} --no-vacuum", 3 * 3600),
        Task(
            "backup", f"{minute} 2 * * 0", f'ops backup {database} --to "s3://${Env.BACKUP_S3_BUCKET}/dumps"', 6 * 3600
        ),
    )


@dataclass(frozen=True)
class MaintenanceArgs:
    """Whose database, where its dumps go."""

    contract: ServiceContract
    image: pulumi.Input[str]
    database_url: pulumi.Input[str]
    backup_bucket: pulumi.Input[str]
    account: ServiceAccount
    node_role: str
    priority_class: str
    time_zone: str
    labels: Mapping[str, str]


class Maintenance(pulumi.ComponentResource):
    """One CronJob a task; a run that is late by more than an hour is left out, two never run at once."""

    def __init__(self, name: str, args: MaintenanceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Maintenance", name, None, opts)
        batch, meta = kubernetes.batch.v1, kubernetes.meta.v1
        for task in tasks(args.contract):
            job = f"{name}-{task.label}"
            labels = labels_of(job, "maintenance", args.labels)
            batch.CronJob(
                job,
                metadata=meta.ObjectMetaArgs(name=job, namespace=Namespace.APPLICATION.value, labels=labels),
                spec=batch.CronJobSpecArgs(
                    schedule=task.schedule,
                    time_zone=args.time_zone,
                    concurrency_policy="Forbid",
                    starting_deadline_seconds=3600,
                    successful_jobs_history_limit=3,
                    failed_jobs_history_limit=5,
                    job_template=batch.JobTemplateSpecArgs(
                        metadata=meta.ObjectMetaArgs(labels=labels),
                        spec=batch.JobSpecArgs(
                            backoff_limit=1,
                            active_deadline_seconds=task.deadline_seconds,
                            ttl_seconds_after_finished=7 * 24 * 3600,
                            template=pod_template(labels, selector_of(job), task_pod(task, args)),
                        ),
                    ),
                ),
                opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.account.ready)),
            )
        self.register_outputs({})


def task_pod(task: Task, args: MaintenanceArgs) -> PodSpec:
    """The pod of one run; it reports for machines (``--json``)."""
    command = f'PGPASSWORD="$(cat "$SECRETS_DIR/{MASTER_PASSWORD_FILE}")" exec python -m {task.command} --json'
    return PodSpec(
        container=ContainerSpec(
            name=task.label,
            image=args.image,
            resources=_RESOURCES,
            command=["/bin/sh", "-ec"],
            args=[command],
            environment={
                Env.DATABASE_URL: args.database_url,
                Env.SECRETS_DIR: SECRETS_DIRECTORY,
                Env.BACKUP_S3_BUCKET: args.backup_bucket,
            },
            files=[
                FileMount("secrets", SECRETS_DIRECTORY, secret_provider=args.account.secret_provider_class),
                FileMount("tmp", TMP, size_limit=_DUMP_SPACE),
            ],
        ),
        service_account=args.account.name,
        priority_class=args.priority_class,
        node_selector={ROLE_LABEL: args.node_role},
        spread=False,
        drain_seconds=30,
        restart_policy="Never",
    )
