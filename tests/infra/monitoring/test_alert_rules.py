"""Every alert fires when it should and is silent when it should be, by Prometheus' own judgement."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from infra.components.observability import scrape_jobs
from infra.monitoring import alertmanager, prometheus
from infra.monitoring.alerts import all_alerts, rule_groups
from infra.monitoring.slo import BURN_RATES, ERROR_BUDGET
from infra.preview.model import Capture

ROOT = Path(__file__).resolve().parents[3]
REPOSITORY = "https://github.com/grandmodel/grandmodel"


@dataclass(frozen=True)
class Case:
    """Series as promtool writes them: what makes an alert fire, and what must not."""

    fires: dict[str, str]
    silent: dict[str, str]
    at: str = "60m"
    step: str = "1m"
    """Between samples and between evaluations. A window that is not yet full gives the same ratio."""


def requests(failed: float) -> dict[str, str]:
    """1,000 requests a step, of which some fail."""
    labels = 'job="strategic",route="/api/strategic/process"'
    return {
        f'http_requests_total{{{labels},status="200"}}': f"0+{1000 - failed}x1100",
        f'http_requests_total{{{labels},status="503"}}': f"0+{failed}x1100",
    }


def always(series: str, value: float) -> dict[str, str]:
    return {series: f"{value}+0x240"}


def growing(series: str, by: float) -> dict[str, str]:
    return {series: f"0+{by}x240"}


def slow_decisions(fast: int, slow: int) -> dict[str, str]:
    name = 'http_request_duration_seconds_bucket{job="strategic",route="/api/strategic/process",le="%s"}'
    return {
        name % "0.05": f"0+{fast}x240",
        name % "0.1": f"0+{fast + slow}x240",
        name % "+Inf": f"0+{fast + slow}x240",
    }


CASES = {
    **{
        f"ErrorBudgetBurn{burn.long_window}": Case(
            requests(1000 * ERROR_BUDGET * burn.rate * 1.2), requests(1000 * ERROR_BUDGET * burn.rate * 0.8), at, step
        )
        for burn, (at, step) in zip(BURN_RATES, [("90m", "1m"), ("2h", "1m"), ("4h", "5m"), ("8h", "5m")], strict=True)
    },
    "ServiceDown": Case(always('up{job="strategic",instance="a"}', 0), always('up{job="strategic",instance="a"}', 1)),
    "StrategicAbsent": Case(always('up{job="tactical"}', 1), always('up{job="strategic"}', 1)),
    "TacticalAbsent": Case(always('up{job="strategic"}', 1), always('up{job="tactical"}', 1)),
    "GatewayAbsent": Case(always('up{job="strategic"}', 1), always('up{job="gateway"}', 1)),
    "DependencyDown": Case(
        always('dependency_up{job="tactical",dependency="database"}', 0),
        always('dependency_up{job="tactical",dependency="database"}', 1),
    ),
    "StrategicLatencyHigh": Case(slow_decisions(900, 100), slow_decisions(999, 1)),
    "InputDrift": Case(always("strategic_input_drift_ratio", 0.2), always("strategic_input_drift_ratio", 0.01)),
    "SamplesRefused": Case(
        growing("strategic_refused_samples_total", 10), always("strategic_refused_samples_total", 10)
    ),
    "TrainingSlow": Case(always("tactical_training_time", 1.5), always("tactical_training_time", 0.2)),
    "TrainingsFail": Case(
        {
            'tactical_trainings_total{kind="job",outcome="failed"}': "0+2x240",
            'tactical_trainings_total{kind="job",outcome="succeeded"}': "0+8x240",
        },
        {
            'tactical_trainings_total{kind="job",outcome="failed"}': "0+1x240",
            'tactical_trainings_total{kind="job",outcome="succeeded"}': "0+99x240",
        },
    ),
    "TrainingQueueLong": Case(
        always('tactical_training_queue_depth{kind="job"}', 21), always('tactical_training_queue_depth{kind="job"}', 3)
    ),
    "DatabasePoolExhausted": Case(
        always('database_pool_waiting_requests{job="strategic"}', 2),
        always('database_pool_waiting_requests{job="strategic"}', 0),
    ),
    "AuditBacklog": Case(
        always('audit_backlog_lines{job="strategic"}', 20_000), always('audit_backlog_lines{job="strategic"}', 10)
    ),
    "AuthenticationFailures": Case(
        growing('authentication_failures_total{job="strategic",status="401"}', 600),
        growing('authentication_failures_total{job="strategic",status="401"}', 60),
    ),
    "ClientsRateLimited": Case(
        growing('rate_limited_requests_total{job="strategic"}', 1200),
        growing('rate_limited_requests_total{job="strategic"}', 60),
    ),
    "DatabaseDown": Case(always("pg_up", 0), always("pg_up", 1)),
    "DatabaseConnectionsHigh": Case(
        {**always('pg_stat_activity_count{datname="strategic_db"}', 450), **always("pg_settings_max_connections", 500)},
        {**always('pg_stat_activity_count{datname="strategic_db"}', 100), **always("pg_settings_max_connections", 500)},
    ),
    "DatabaseTransactionLong": Case(
        always('pg_stat_activity_max_tx_duration{datname="strategic_db"}', 1200),
        always('pg_stat_activity_max_tx_duration{datname="strategic_db"}', 20),
    ),
    "DatabaseDeadlocks": Case(
        growing('pg_stat_database_deadlocks{datname="tactical_db"}', 1),
        always('pg_stat_database_deadlocks{datname="tactical_db"}', 3),
    ),
    "CacheMemoryHigh": Case(
        always("aws_elasticache_database_memory_usage_percentage_average", 90),
        always("aws_elasticache_database_memory_usage_percentage_average", 50),
    ),
    "NodeMemoryLow": Case(
        {**always("node_memory_MemAvailable_bytes", 5), **always("node_memory_MemTotal_bytes", 100)},
        {**always("node_memory_MemAvailable_bytes", 50), **always("node_memory_MemTotal_bytes", 100)},
    ),
    "NodeCpuHigh": Case(
        growing('node_cpu_seconds_total{instance="a",cpu="0",mode="idle"}', 1),
        growing('node_cpu_seconds_total{instance="a",cpu="0",mode="idle"}', 30),
    ),
    "NodeDiskLow": Case(
        {
            **always('node_filesystem_avail_bytes{mountpoint="/",fstype="xfs"}', 10),
            **always('node_filesystem_size_bytes{mountpoint="/",fstype="xfs"}', 100),
        },
        {
            **always('node_filesystem_avail_bytes{mountpoint="/run",fstype="tmpfs"}', 1),
            **always('node_filesystem_size_bytes{mountpoint="/run",fstype="tmpfs"}', 100),
        },
    ),
    "GpuHot": Case(always('DCGM_FI_DEV_GPU_TEMP{gpu="0"}', 90), always('DCGM_FI_DEV_GPU_TEMP{gpu="0"}', 60)),
    "GpuError": Case(always('DCGM_FI_DEV_XID_ERRORS{gpu="0"}', 79), always('DCGM_FI_DEV_XID_ERRORS{gpu="0"}', 0)),
    "GpuMemoryFull": Case(
        {**always('DCGM_FI_DEV_FB_USED{gpu="0"}', 99), **always('DCGM_FI_DEV_FB_FREE{gpu="0"}', 1)},
        {**always('DCGM_FI_DEV_FB_USED{gpu="0"}', 50), **always('DCGM_FI_DEV_FB_FREE{gpu="0"}', 50)},
    ),
    "TargetDown": Case(always('up{job="node",instance="a"}', 0), always('up{job="strategic",instance="a"}', 0)),
    "RuleEvaluationFails": Case(
        growing("prometheus_rule_evaluation_failures_total", 1), always("prometheus_rule_evaluation_failures_total", 1)
    ),
    "NotificationsDropped": Case(
        growing("prometheus_notifications_dropped_total", 1), always("prometheus_notifications_dropped_total", 1)
    ),
}


def tool(name: str, package: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return program


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    file = tmp_path / prometheus.RULES_FILE
    file.write_text(yaml.safe_dump(rule_groups(REPOSITORY)), encoding="utf-8")
    return file


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_cases() -> None:
    assert set(CASES) == {alert.name for alert in all_alerts()}


@pytest.mark.parametrize("step", ["1m", "5m"])
def test_alerts_fire_and_keep_silent(rules_file: Path, tmp_path: Path, step: str) -> None:
    tests = []
    for name, case in CASES.items():
        if case.step != step:
            continue
        for series, firing in ((case.fires, True), (case.silent, False)):
            tests.append(
                {
                    "name": f"{name} {'fires' if firing else 'is silent'}",
                    "interval": step,
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'clamp_max(count(ALERTS{{alertname="{name}",alertstate="firing"}}), 1)',
                            "eval_time": case.at,
                            "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
                        }
                    ],
                }
            )
    suite = tmp_path / "tests.yml"
    document = {"rule_files": [str(rules_file)], "evaluation_interval": step, "tests": tests}
    suite.write_text(json.dumps(document), encoding="utf-8")
    run(tool("promtool", "prometheus"), "test", "rules", str(suite))


def test_a_fast_burn_is_told_while_it_lasts_and_not_after(rules_file: Path, tmp_path: Path) -> None:
    """An outage of ten minutes pages within it, and is calm half an hour later."""
    series = 'http_requests_total{job="strategic",route="/api/strategic/process"'
    alert = 'count(ALERTS{alertname="ErrorBudgetBurn1h",alertstate="firing"})'
    suite = {
        "rule_files": [str(rules_file)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'{series},status="200"}}', "values": "0+1000x60 60000+0x10 61000+1000x120"},
                    {"series": f'{series},status="503"}}', "values": "0+0x60 1000+1000x10 11000+0x120"},
                ],
                "promql_expr_test": [
                    {"expr": alert, "eval_time": "58m", "exp_samples": []},
                    {"expr": alert, "eval_time": "70m", "exp_samples": [{"labels": "{}", "value": 1}]},
                    {"expr": alert, "eval_time": "100m", "exp_samples": []},
                ],
            }
        ],
    }  # fmt: skip
    file = tmp_path / "burn.yml"
    file.write_text(json.dumps(suite), encoding="utf-8")
    run(tool("promtool", "prometheus"), "test", "rules", str(file))


@pytest.mark.parametrize("has_gpu_nodes", [True, False])
def test_prometheus_takes_its_configuration(rules_file: Path, has_gpu_nodes: bool) -> None:
    file = rules_file.parent / "prometheus.yml"
    document = prometheus.configuration(
        scrape_jobs(has_gpu_nodes=has_gpu_nodes), alertmanagers=["alertmanager:9093"], external_labels={"stack": "test"}
    )
    for job in document["scrape_configs"]:
        # Debian builds promtool without Kubernetes; the rest of each job is checked around a target of another kind.
        if "kubernetes_sd_configs" in job:
            [discovery] = job.pop("kubernetes_sd_configs")
            assert set(discovery) == {"role", "namespaces"}
            job["static_configs"] = [{"targets": ["pod:1"]}]
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    run(tool("promtool", "prometheus"), "check", "config", "--syntax-only", str(file))
    run(tool("promtool", "prometheus"), "check", "rules", str(rules_file))


def test_alertmanager_takes_its_configuration_and_pages_first(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    document = alertmanager.configuration("arn:aws:sns:eu-west-1:111111111111:alerts", "eu-west-1")
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    run(tool("amtool", "prometheus-alertmanager"), "check-config", str(file))
    [page] = document["route"]["routes"]
    assert page["matchers"] == ['severity="page"']
    assert (page["group_wait"], page["repeat_interval"]) == ("10s", "1h")


def test_the_cluster_runs_what_was_tested_here(estate: Capture) -> None:
    [configuration] = [r for r in estate.custom if r.name == "prometheus-configuration"]
    data = configuration.inputs["data"]
    assert yaml.safe_load(data["rules.yml"]) == rule_groups(REPOSITORY)
    config = yaml.safe_load(data["prometheus.yml"])
    intervals = {job["job_name"]: job["scrape_interval"] for job in config["scrape_configs"]}
    assert intervals == {
        "prometheus": "15s", "strategic": "10s", "tactical": "10s", "gateway": "15s",
        "postgresql": "15s", "redis": "15s", "node": "15s", "dcgm": "15s",
    }  # fmt: skip
    for job in config["scrape_configs"]:
        if job["job_name"] in ("strategic", "tactical", "gateway"):
            assert job["tls_config"]["server_name"] == f"{job['job_name']}.grandmodel.svc"


def test_every_alert_names_a_runbook_that_exists(estate: Capture) -> None:
    for alert in all_alerts():
        assert (ROOT / "docs/runbooks" / f"{alert.runbook}.md").is_file(), f"{alert.name}: {alert.runbook}.md"
    for resource in estate.custom:
        if resource.type == "aws:cloudwatch/metricAlarm:MetricAlarm":
            runbook = resource.inputs["alarmDescription"].rpartition("Runbook: ")[2]
            assert (ROOT / runbook).is_file(), f"{resource.name}: {runbook}"


def test_every_runbook_says_what_how_and_when_it_is_over() -> None:
    wanted = ["## What it means", "## How to see it", "## What to do", "## How to know it is over"]
    files = [file for file in (ROOT / "docs/runbooks").glob("*.md") if file.name != "README.md"]
    assert files
    for file in files:
        headings = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
        assert headings == wanted, file.name
