"""The alerts, and the rule files that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.contract import (
    METRIC_AUDIT_BACKLOG,
    METRIC_AUTHENTICATION_FAILURES,
    METRIC_DATABASE_POOL_WAITING,
    METRIC_DEPENDENCY_UP,
    METRIC_HTTP_DURATION,
    METRIC_RATE_LIMITED,
    METRIC_TACTICAL_TRAINING_TIME,
    STRATEGIC,
    TACTICAL,
)
from infra.monitoring.alert import Alert, Severity
from infra.monitoring.slo import burn_rate_alerts, recording_rules

_OURS: Final = f"{STRATEGIC.service}|{TACTICAL.service}|gateway"
_DISKS: Final = '{fstype!~"tmpfs|overlay"}'
_PROCESS: Final = f"{STRATEGIC.api_prefix}/process"

SERVICE_ALERTS: Final[Sequence[Alert]] = (
    Alert(
        "ServiceDown",
        f'up{{job=~"{_OURS}"}} == 0',
        "2m",
        Severity.PAGE,
        "A pod of {{ $labels.job }} cannot be scraped: {{ $labels.instance }}",
        "service-down",
    ),
    *(
        Alert(
            f"{job.capitalize()}Absent",
            f'absent(up{{job="{job}"}})',
            "5m",
            Severity.PAGE,
            f"There is no pod of {job} at all",
            "service-down",
        )
        for job in _OURS.split("|")
    ),
    Alert(
        "DependencyDown",
        f"min by (job, dependency) ({METRIC_DEPENDENCY_UP}) == 0",
        "2m",
        Severity.PAGE,
        "{{ $labels.job }} cannot reach its {{ $labels.dependency }}",
        "dependency-down",
    ),
    Alert(
        "StrategicLatencyHigh",
        "histogram_quantile(0.99, sum by (le) "
        f'(rate({METRIC_HTTP_DURATION}_bucket{{job="{STRATEGIC.service}",route="{_PROCESS}"}}[5m]))) > 0.05',
        "10m",
        Severity.TICKET,
        "One in a hundred strategic decisions takes longer than 50 ms",
        "strategic-latency",
    ),
    Alert(
        "InputDrift",
        "max(strategic_input_drift_ratio) > 0.1",
        "30m",
        Severity.TICKET,
        "More than a tenth of the matrices look unlike what the strategic model was trained on",
        "input-drift",
    ),
    Alert(
        "SamplesRefused",
        "sum(rate(strategic_refused_samples_total[5m])) > 0",
        "5m",
        Severity.TICKET,
        "The strategic service refuses samples because its queue is full",
        "strategic-overload",
    ),
    Alert(
        "TrainingSlow",
        f"avg({METRIC_TACTICAL_TRAINING_TIME}) > 1",
        "15m",
        Severity.TICKET,
        "Synchronous trainings take longer than their second",
        "tactical-training-slow",
    ),
    Alert(
        "TrainingsFail",
        'sum(rate(tactical_trainings_total{outcome="failed"}[15m])) > 0.1 * sum(rate(tactical_trainings_total[15m]))',
        "10m",
        Severity.TICKET,
        "More than a tenth of the trainings fail",
        "tactical-trainings-fail",
    ),
    Alert(
        "TrainingQueueLong",
        "max by (kind) (tactical_training_queue_depth) > 20",
        "15m",
        Severity.TICKET,
        "More than 20 trainings of kind {{ $labels.kind }} wait for a device",
        "tactical-queue",
    ),
    Alert(
        "DatabasePoolExhausted",
        f"sum by (job) ({METRIC_DATABASE_POOL_WAITING}) > 0",
        "5m",
        Severity.TICKET,
        "Requests of {{ $labels.job }} wait for a database connection",
        "database-pool",
    ),
    Alert(
        "AuditBacklog",
        f"max by (job) ({METRIC_AUDIT_BACKLOG}) > 10000",
        "5m",
        Severity.TICKET,
        "{{ $labels.job }} writes its audit log slower than it fills",
        "audit-backlog",
    ),
    Alert(
        "AuthenticationFailures",
        f"sum by (job) (rate({METRIC_AUTHENTICATION_FAILURES}[5m])) > 5",
        "10m",
        Severity.TICKET,
        "{{ $labels.job }} refuses more than 5 requests a second for want of a valid token",
        "authentication-failures",
    ),
    Alert(
        "ClientsRateLimited",
        f"sum by (job) (rate({METRIC_RATE_LIMITED}[5m])) > 10",
        "15m",
        Severity.TICKET,
        "{{ $labels.job }} refuses more than 10 requests a second as too many",
        "rate-limited",
    ),
)
DATA_ALERTS: Final[Sequence[Alert]] = (
    Alert(
        "DatabaseDown",
        # The services page when they lose it (DependencyDown). The exporter alone may wait for a rotated password.
        "pg_up == 0",
        "15m",
        Severity.TICKET,
        "PostgreSQL does not answer its exporter",
        "database-down",
    ),
    Alert(
        "DatabaseConnectionsHigh",
        "sum(pg_stat_activity_count) / max(pg_settings_max_connections) > 0.8",
        "10m",
        Severity.TICKET,
        "More than 80 % of PostgreSQL's connections are taken",
        "database-connections",
    ),
    Alert(
        "DatabaseTransactionLong",
        "max by (datname) (pg_stat_activity_max_tx_duration) > 900",
        "5m",
        Severity.TICKET,
        "A transaction in {{ $labels.datname }} has been open for more than 15 minutes: vacuum cannot clean behind it",
        "database-long-transaction",
    ),
    Alert(
        "DatabaseDeadlocks",
        "sum by (datname) (rate(pg_stat_database_deadlocks[10m])) > 0",
        "10m",
        Severity.TICKET,
        "Transactions in {{ $labels.datname }} run into deadlocks",
        "database-deadlocks",
    ),
    Alert(
        "CacheMemoryHigh",
        "max(aws_elasticache_database_memory_usage_percentage_average) > 80",
        "15m",
        Severity.TICKET,
        "The cache uses more than 80 % of its memory",
        "cache-memory",
    ),
)
NODE_ALERTS: Final[Sequence[Alert]] = (
    Alert(
        "NodeMemoryLow",
        "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.1",
        "10m",
        Severity.TICKET,
        "Node {{ $labels.instance }} has less than a tenth of its memory left",
        "node-saturated",
    ),
    Alert(
        "NodeCpuHigh",
        '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m])) > 0.95',
        "15m",
        Severity.TICKET,
        "Node {{ $labels.instance }} has been busy above 95 % for 15 minutes",
        "node-saturated",
    ),
    Alert(
        "NodeDiskLow",
        f"node_filesystem_avail_bytes{_DISKS} / node_filesystem_size_bytes{_DISKS} < 0.15",
        "10m",
        Severity.TICKET,
        "{{ $labels.mountpoint }} of {{ $labels.instance }} has less than 15 % left",
        "node-disk",
    ),
    Alert(
        "GpuHot",
        "max by (instance, gpu) (DCGM_FI_DEV_GPU_TEMP) > 85",
        "10m",
        Severity.TICKET,
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} is hotter than 85 degrees Celsius and slows down",
        "gpu-hot",
    ),
    Alert(
        "GpuError",
        "max by (instance, gpu) (DCGM_FI_DEV_XID_ERRORS) > 0",
        "1m",
        Severity.TICKET,
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} reports XID {{ $value }}",
        "gpu-error",
    ),
    Alert(
        "GpuMemoryFull",
        "max by (instance, gpu) (DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)) > 0.95",
        "10m",
        Severity.TICKET,
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} has less than 5 % of its memory left",
        "gpu-saturated",
    ),
)
MONITORING_ALERTS: Final[Sequence[Alert]] = (
    Alert(
        "TargetDown",
        f'up{{job!~"{_OURS}"}} == 0',
        "10m",
        Severity.TICKET,
        "{{ $labels.job }} at {{ $labels.instance }} cannot be scraped",
        "monitoring-broken",
    ),
    Alert(
        "RuleEvaluationFails",
        "rate(prometheus_rule_evaluation_failures_total[5m]) > 0",
        "10m",
        Severity.PAGE,
        "Prometheus cannot evaluate a rule: an alert may be blind",
        "monitoring-broken",
    ),
    Alert(
        "NotificationsDropped",
        "rate(prometheus_notifications_dropped_total[5m]) > 0",
        "10m",
        Severity.PAGE,
        "Prometheus cannot hand alerts to Alertmanager",
        "monitoring-broken",
    ),
)


def all_alerts() -> list[Alert]:
    """Every alert."""
    return [*burn_rate_alerts(), *SERVICE_ALERTS, *DATA_ALERTS, *NODE_ALERTS, *MONITORING_ALERTS]


def rule_groups(repository_url: str) -> dict[str, Any]:
    """The rule file: recorded ratios first, then alerts by what they watch."""

    def group(name: str, alerts: Sequence[Alert]) -> dict[str, Any]:
        return {"name": name, "rules": [alert.rule(repository_url) for alert in alerts]}

    return {
        "groups": [
            {"name": "slo-ratios", "interval": "30s", "rules": recording_rules()},
            group("slo", burn_rate_alerts()),
            group("services", SERVICE_ALERTS),
            group("data", DATA_ALERTS),
            group("nodes", NODE_ALERTS),
            group("monitoring", MONITORING_ALERTS),
        ]
    }
