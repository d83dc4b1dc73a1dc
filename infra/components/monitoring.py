"""CloudWatch's view of the estate: the cluster's log groups, its alarms, and one dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from infra.components.alarms import AlarmSpec, alarms
from infra.components.log_group import log_group
from infra.tags import Tags

_INSIGHTS: Final = "ContainerInsights"
_INSIGHTS_LOGS: Final = ("application", "dataplane", "host", "performance")

CLUSTER_ALARMS: Final = (
    AlarmSpec(
        "failed-nodes",
        _INSIGHTS,
        "cluster_failed_node_count",
        0,
        "node-failed",
        "A node has failed and was not repaired within 15 minutes",
        statistic="Maximum",
        periods=3,
    ),
    AlarmSpec("node-cpu", _INSIGHTS, "node_cpu_utilization", 90, "node-saturated", "Nodes above 90 % CPU", periods=3),
    AlarmSpec(
        "node-memory", _INSIGHTS, "node_memory_utilization", 90, "node-saturated", "Nodes above 90 % memory", periods=3
    ),
    AlarmSpec(
        "node-disk", _INSIGHTS, "node_filesystem_utilization", 80, "node-disk", "Nodes' disks above 80 %", periods=2
    ),
)
GPU_ALARMS: Final = (
    AlarmSpec(
        "gpu-memory",
        _INSIGHTS,
        "node_gpu_memory_utilization",
        95,
        "gpu-saturated",
        "GPUs' memory above 95 %: the next training fails",
        statistic="Maximum",
        periods=2,
    ),
    AlarmSpec(
        "gpu-temperature",
        _INSIGHTS,
        "node_gpu_temperature",
        85,
        "gpu-hot",
        "A GPU is hotter than 85 degrees Celsius and slows down",
        statistic="Maximum",
        periods=2,
    ),
)


@dataclass(frozen=True)
class MonitoringArgs:
    """What is watched, and who is told."""

    region: str
    cluster_name: pulumi.Input[str]
    database_identifier: pulumi.Input[str]
    cache_id: pulumi.Input[str]
    has_gpu_nodes: bool
    logs_key_arn: pulumi.Input[str]
    log_retention_days: int
    topic_arn: pulumi.Input[str]
    tags: Tags


class Monitoring(pulumi.ComponentResource):
    """Container Insights' log groups under our key, alarms on nodes and GPUs, and the on-call's first page."""

    log_group_names: Sequence[pulumi.Output[str]]

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Monitoring", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        cluster_name = f"{args.tags.project}-{args.tags.stack}"
        groups = [
            log_group(
                f"{name}-{kind}-logs",
                path=f"/aws/containerinsights/{cluster_name}/{kind}",
                key_arn=args.logs_key_arn,
                retention_days=args.log_retention_days,
                tags=args.tags,
                opts=child,
            )
            for kind in _INSIGHTS_LOGS
        ]
        alarms(
            f"{name}-cluster",
            [*CLUSTER_ALARMS, *(GPU_ALARMS if args.has_gpu_nodes else ())],
            dimensions={"ClusterName": args.cluster_name},
            topic_arn=args.topic_arn,
            tags=args.tags,
            opts=child,
        )
        aws.cloudwatch.Dashboard(
            f"{name}-overview",
            dashboard_name=f"{cluster_name}-overview",
            dashboard_body=pulumi.Output.json_dumps(
                dashboard(args.region, args.cluster_name, args.database_identifier, args.cache_id)
            ),
            opts=child,
        )
        self.log_group_names = [group.name for group in groups]
        self.register_outputs({})


def dashboard(
    region: str, cluster: pulumi.Input[str], database: pulumi.Input[str], cache: pulumi.Input[str]
) -> Mapping[str, Any]:
    """Body of the overview: nodes above, data stores below."""
    primary = pulumi.Output.concat(cache, "-001")
    charts: Sequence[tuple[str, list[list[Any]]]] = (
        (
            "Nodes: CPU and memory (%)",
            [[_INSIGHTS, f"node_{m}_utilization", "ClusterName", cluster] for m in ("cpu", "memory")],
        ),
        (
            "GPU: utilisation and memory (%)",
            [[_INSIGHTS, f"node_gpu_{m}", "ClusterName", cluster] for m in ("utilization", "memory_utilization")],
        ),
        ("Database: CPU (%)", [["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", database]]),
        ("Database: connections", [["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", database]]),
        (
            "Database: latency (s)",
            [["AWS/RDS", f"{m}Latency", "DBInstanceIdentifier", database] for m in ("Read", "Write")],
        ),
        (
            "Cache: CPU and memory (%)",
            [
                ["AWS/ElastiCache", m, "CacheClusterId", primary]
                for m in ("EngineCPUUtilization", "DatabaseMemoryUsagePercentage")
            ],
        ),
    )
    return {
        "widgets": [
            {
                "type": "metric",
                "x": 8 * (index % 3),
                "y": 6 * (index // 3),
                "width": 8,
                "height": 6,
                "properties": {"title": title, "region": region, "period": 60, "stat": "Average", "metrics": metrics},
            }
            for index, (title, metrics) in enumerate(charts)
        ]
    }
