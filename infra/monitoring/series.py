"""Series of exporters that are not ours, by the exporter that makes them: what rules and dashboards may name.

The services' own series are not repeated here: tests take them from the services' registries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXPORTED: Final[Mapping[str, frozenset[str]]] = {
    # Prometheus itself (its "/metrics") and what it writes about every scrape.
    "prometheus": frozenset(
        {
            "up",
            "scrape_duration_seconds",
            "prometheus_rule_evaluation_failures_total",
            "prometheus_notifications_dropped_total",
            "prometheus_tsdb_head_series",
        }
    ),
    # infra/gateway/nginx.py, private listener.
    "gateway": frozenset(
        {
            "nginx_up",
            "nginx_connections_active",
            "nginx_connections_reading",
            "nginx_connections_writing",
            "nginx_connections_waiting",
        }
    ),
    # prometheus-client's process and platform collectors, in every Python service with one worker process.
    "python": frozenset({"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}),
    # github.com/prometheus-community/postgres_exporter: default collectors, README "Metrics".
    "postgres": frozenset(
        {
            "pg_up",
            "pg_settings_max_connections",
            "pg_stat_activity_count",
            "pg_stat_activity_max_tx_duration",
            "pg_stat_database_blks_hit",
            "pg_stat_database_blks_read",
            "pg_stat_database_deadlocks",
            "pg_stat_database_xact_commit",
            "pg_stat_database_xact_rollback",
            "pg_stat_database_temp_bytes",
            "pg_stat_statements_calls_total",
            "pg_stat_statements_seconds_total",
            "pg_database_size_bytes",
        }
    ),
    # github.com/prometheus-community/yet-another-cloudwatch-exporter: aws_<service>_<metric>_<statistic> of the jobs in
    # infra/monitoring/cloudwatch.py.
    "cloudwatch": frozenset(
        {
            "aws_elasticache_engine_cpuutilization_average",
            "aws_elasticache_database_memory_usage_percentage_average",
            "aws_elasticache_curr_connections_average",
            "aws_elasticache_evictions_sum",
            "aws_elasticache_cache_hit_rate_average",
            "aws_elasticache_replication_lag_maximum",
        }
    ),
    # github.com/prometheus/node_exporter: cpu, meminfo, filesystem and loadavg collectors. Not the network's: in a pod
    # without the host's network it counts the pod's own traffic.
    "node": frozenset(
        {
            "node_cpu_seconds_total",
            "node_load1",
            "node_memory_MemAvailable_bytes",
            "node_memory_MemTotal_bytes",
            "node_filesystem_avail_bytes",
            "node_filesystem_size_bytes",
        }
    ),
    # github.com/NVIDIA/dcgm-exporter: etc/default-counters.csv.
    "dcgm": frozenset(
        {
            "DCGM_FI_DEV_GPU_UTIL",
            "DCGM_FI_DEV_GPU_TEMP",
            "DCGM_FI_DEV_FB_USED",
            "DCGM_FI_DEV_FB_FREE",
            "DCGM_FI_DEV_POWER_USAGE",
            "DCGM_FI_DEV_XID_ERRORS",
        }
    ),
}
