"""The Grafana dashboards as code: one for the whole system, one for each service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import VisibilityMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from app.contract import (
    METRIC_DATABASE_POOL_CONNECTIONS,
    METRIC_DATABASE_POOL_WAITING,
    METRIC_DEPENDENCY_UP,
    METRIC_HTTP_DURATION,
    METRIC_HTTP_IN_FLIGHT,
    METRIC_HTTP_REQUESTS,
    METRIC_RATE_LIMITED,
    METRIC_STRATEGIC_THROUGHPUT,
    METRIC_TACTICAL_TRAINING_STEPS,
    METRIC_TACTICAL_TRAINING_TIME,
    STRATEGIC,
    STRATEGIC_TARGET_SAMPLES_PER_SECOND,
    TACTICAL,
    ServiceContract,
)
from infra.monitoring.slo import error_ratio

DATA_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
_WIDTH: Final = 12  # of Grafana's 24 columns
_HEIGHT: Final = 8


@dataclass(frozen=True)
class Chart:
    """A panel: lines by legend, in a unit of Grafana's."""

    title: str
    unit: str
    lines: Mapping[str, str]


def _quantile(quantile: float, histogram: str, selector: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({histogram}_bucket{selector}[5m])))"


SYSTEM: Final[Sequence[Chart]] = (
    Chart(
        "Strategic throughput",
        "short",
        {
            "samples/s": f"sum({METRIC_STRATEGIC_THROUGHPUT})",
            "target": f"vector({STRATEGIC_TARGET_SAMPLES_PER_SECOND})",
        },
    ),
    Chart(
        "Tactical training time",
        "s",
        {
            "newest, {{pod}}": f"max by (pod) ({METRIC_TACTICAL_TRAINING_TIME})",
            "p95": _quantile(0.95, "tactical_training_duration_seconds", ""),
        },
    ),
    Chart(
        "CPU and memory of nodes",
        "percentunit",
        {
            "CPU {{instance}}": '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))',
            "memory {{instance}}": "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
        },
    ),
    Chart(
        "Database connections",
        "short",
        {
            "{{datname}}": "sum by (datname) (pg_stat_activity_count)",
            "limit": "max(pg_settings_max_connections)",
        },
    ),
    Chart(
        "Database query time",
        "s",
        {
            "mean, {{datname}}": "sum by (datname) (rate(pg_stat_statements_seconds_total[5m])) "
            "/ sum by (datname) (rate(pg_stat_statements_calls_total[5m]))",
        },
    ),
    Chart(
        "Share of failed requests",
        "percentunit",
        {"{{job}}, 1 h": error_ratio("1h"), "{{job}}, 6 h": error_ratio("6h")},
    ),
    Chart(
        "Cache",
        "percent",
        {
            "CPU": "max(aws_elasticache_engine_cpuutilization_average)",
            "memory": "max(aws_elasticache_database_memory_usage_percentage_average)",
        },
    ),
    Chart(
        "GPU",
        "percent",
        {"busy, {{instance}}": "max by (instance) (DCGM_FI_DEV_GPU_UTIL)"},
    ),
    Chart("Gateway connections", "short", {"active": "sum(nginx_connections_active)"}),
)


def _common(contract: ServiceContract) -> Sequence[Chart]:
    """What every service shows."""
    job = f'{{job="{contract.service}"}}'
    return (
        Chart(
            "Requests",
            "reqps",
            {"{{route}} {{status}}": f"sum by (route, status) (rate({METRIC_HTTP_REQUESTS}{job}[5m]))"},
        ),
        Chart(
            "Duration of requests",
            "s",
            {
                f"p{quantile * 100:g} {{{{route}}}}": _quantile(quantile, METRIC_HTTP_DURATION, job, by="route")
                for quantile in (0.5, 0.99)
            },
        ),
        Chart("Requests in flight", "short", {"{{pod}}": f"sum by (pod) ({METRIC_HTTP_IN_FLIGHT}{job})"}),
        Chart("Dependencies", "short", {"{{dependency}}": f"min by (dependency) ({METRIC_DEPENDENCY_UP}{job})"}),
        Chart(
            "Database pool",
            "short",
            {
                "{{state}}": f"sum by (state) ({METRIC_DATABASE_POOL_CONNECTIONS}{job})",
                "waiting": f"sum({METRIC_DATABASE_POOL_WAITING}{job})",
            },
        ),
        Chart("Refused as too many", "reqps", {"refused": f"sum(rate({METRIC_RATE_LIMITED}{job}[5m]))"}),
    )


STRATEGIC_CHARTS: Final[Sequence[Chart]] = (
    Chart("Throughput", "short", {"{{pod}}": f"sum by (pod) ({METRIC_STRATEGIC_THROUGHPUT})"}),
    Chart(
        "Latency",
        "s",
        {f"p{q * 100:g}": _quantile(q, "strategic_latency_seconds", "") for q in (0.5, 0.95, 0.99)},
    ),
    Chart(
        "Where the time goes (p95 of a batch)",
        "s",
        {
            "engine": _quantile(0.95, "strategic_engine_seconds", ""),
            "commit": _quantile(0.95, "strategic_commit_seconds", ""),
        },
    ),
    Chart("Queue", "short", {"{{pod}}": "sum by (pod) (strategic_queue_samples)"}),
    Chart("Decisions", "short", {"{{decision}}": "sum by (decision) (rate(strategic_decisions_total[5m]))"}),
    Chart("Regimes", "short", {"{{regime}}": "sum by (regime) (rate(strategic_regimes_total[5m]))"}),
    Chart("Input drift", "percentunit", {"share of unfamiliar samples": "max(strategic_input_drift_ratio)"}),
)
TACTICAL_CHARTS: Final[Sequence[Chart]] = (
    Chart("Trainings", "ops", {"{{kind}} {{outcome}}": "sum by (kind, outcome) (rate(tactical_trainings_total[5m]))"}),
    Chart(
        "Duration of trainings",
        "s",
        {f"p{q * 100:g}": _quantile(q, "tactical_training_duration_seconds", "") for q in (0.5, 0.95)},
    ),
    Chart("Steps learned from", "ops", {"steps/s": f"sum(rate({METRIC_TACTICAL_TRAINING_STEPS}[5m]))"}),
    Chart("Return of the newest training", "percent", {"{{when}}": "max by (when) (tactical_training_return)"}),
    Chart("Loss of the newest update", "short", {"{{network}}": "max by (network) (tactical_training_loss)"}),
    Chart("Trainings that wait", "short", {"{{kind}}": "max by (kind) (tactical_training_queue_depth)"}),
    Chart("GPU memory", "bytes", {"{{pod}} {{device}}": "sum by (pod, device) (tactical_gpu_memory_bytes)"}),
)


def dashboards() -> Mapping[str, str]:
    """Dashboard JSON by file name, ready for provisioning."""
    pages = {
        "system": ("GrandModel", SYSTEM),
        STRATEGIC.service.value: ("GrandModel: strategic service", [*STRATEGIC_CHARTS, *_common(STRATEGIC)]),
        TACTICAL.service.value: ("GrandModel: tactical service", [*TACTICAL_CHARTS, *_common(TACTICAL)]),
    }
    return {f"{uid}.json": _dashboard(uid, title, charts) for uid, (title, charts) in pages.items()}


def queries() -> list[str]:
    """Every query of every dashboard."""
    charts = [*SYSTEM, *STRATEGIC_CHARTS, *TACTICAL_CHARTS, *_common(STRATEGIC), *_common(TACTICAL)]
    return [query for chart in charts for query in chart.lines.values()]


def _dashboard(uid: str, title: str, charts: Sequence[Chart]) -> str:
    page = (
        dashboard.Dashboard(title)
        .uid(f"grandmodel-{uid}")
        .tags(["grandmodel"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("utc")
        .readonly()
    )
    for chart in charts:
        page = page.with_panel(_panel(chart))
    return JSONEncoder(sort_keys=True, indent=2).encode(page.build())


def _panel(chart: Chart) -> timeseries.Panel:
    panel = timeseries.Panel().title(chart.title).unit(chart.unit).datasource(DATA_SOURCE)
    panel = panel.min(0).height(_HEIGHT).span(_WIDTH).fill_opacity(10).show_points(VisibilityMode.NEVER)
    for letter, (legend, query) in zip("ABCDEFGH", chart.lines.items(), strict=False):
        panel = panel.with_target(
            prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter).datasource(DATA_SOURCE)
        )
    return panel
