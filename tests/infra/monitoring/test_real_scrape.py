"""A real Prometheus with the generated configuration and rules scrapes the running system: what do queries find?

Both services as ``make serve`` starts them, the real nginx in front, Debian's exporters of PostgreSQL and of the node.
What cannot run here is named in ``ELSEWHERE``, with where its series were read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from app.contract import SERVICES, STRATEGIC, TACTICAL, Env, Service
from app.service.migrations import Roles
from infra.gateway.nginx import GatewayConfig
from infra.monitoring import prometheus
from infra.monitoring.alerts import all_alerts, rule_groups
from infra.monitoring.dashboards import queries
from infra.monitoring.series import EXPORTED
from infra.monitoring.slo import recording_rules
from ops.local.certificates import issue_certificates
from ops.local.postgres import replace_database
from ops.local.process import free_port
from ops.local.stack import RunningStack, StackOptions, running_stack
from tests.infra.gateway.conftest import nginx_runs_as_root, start, stop, upstream
from tests.infra.monitoring.test_series_exist import named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MATRIX = {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": [[0.1] * 13] * 48}}
WINDOW = [[0.01 * (bar % 5)] * 7 for bar in range(30)]
ELSEWHERE = {
    # AWS and GPUs: names as in the sources of the pinned exporters (infra/monitoring/series.py).
    *EXPORTED["cloudwatch"],
    *EXPORTED["dcgm"],
    "tactical_gpu_memory_bytes",
    # Debian's exporter is older than the collector.
    "pg_stat_statements_calls_total",
    "pg_stat_statements_seconds_total",
    # Written by the rules, which test_alert_rules.py evaluates over days of samples.
    *(str(rule["record"]) for rule in recording_rules()),
}
QUIET = {
    # Prometheus has them from its first evaluation on; no label is set before something went wrong.
    "prometheus_rule_evaluation_failures_total",
    "prometheus_notifications_dropped_total",
}


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        return document["data"]

    def targets(self) -> dict[str, dict[str, Any]]:
        return {target["labels"]["job"]: target for target in self.ask("targets")["activeTargets"]}


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return found


@contextlib.contextmanager
def running(*command: str, log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def running_gateway(stack: RunningStack, directory: Path) -> Iterator[GatewayConfig]:
    certificates = issue_certificates(stack.directory / "certificates")
    tls = directory / "tls"
    tls.mkdir(mode=0o755)
    for source, name in (
        (certificates.certificate, "tls.crt"),
        (certificates.key, "tls.key"),
        (certificates.ca, "ca.crt"),
    ):
        shutil.copy(source, tls / name)
    urls = {STRATEGIC: stack.strategic, TACTICAL: stack.tactical}
    config = GatewayConfig(
        upstreams=[
            upstream(contract.service.value, [f"127.0.0.1:{str(url).rpartition(':')[2]}"], server_name="localhost")
            for contract, url in urls.items()
        ],
        tls_directory=str(tls),
        private_networks=("127.0.0.1/32",),
        https_port=free_port(),
        http_port=free_port(),
        private_port=free_port(),
        working_directory=str(directory),
        extra_main=("user root;",) if nginx_runs_as_root() else (),
    )
    process = start(config, directory)
    try:
        yield config
    finally:
        stop(process)


@contextlib.contextmanager
def running_exporters(stack: RunningStack, directory: Path) -> Iterator[dict[str, int]]:
    """As the cluster runs them: PostgreSQL is read by the role that monitors, with its own password."""
    ports = {"postgresql": free_port(), "node": free_port()}
    words = json.loads((stack.directory / "secrets.json").read_text())["role_passwords"]
    role = Roles.of(Service.STRATEGIC).monitoring
    url = replace_database(stack.databases[Service.STRATEGIC], STRATEGIC.database, user=role, password=words[role])
    with (
        running(
            program("prometheus-postgres-exporter", "prometheus-postgres-exporter"),
            f"--web.listen-address=127.0.0.1:{ports['postgresql']}",
            log=directory / "postgres-exporter.log",
            DATA_SOURCE_NAME=f"{url}?sslmode=disable",
        ),
        running(
            program("prometheus-node-exporter", "prometheus-node-exporter"),
            f"--web.listen-address=127.0.0.1:{ports['node']}",
            log=directory / "node-exporter.log",
        ),
    ):
        yield ports


@contextlib.contextmanager
def running_prometheus(stack: RunningStack, others: dict[str, int], directory: Path) -> Iterator[Prometheus]:
    """The generated configuration; only the discovery of pods is replaced by addresses."""
    port = free_port()
    addresses = {
        "strategic": str(stack.strategic).rpartition(":")[2],
        "tactical": str(stack.tactical).rpartition(":")[2],
    }
    jobs = [prometheus.ScrapeJob("prometheus", prometheus.FixedTargets([f"127.0.0.1:{port}"]))]
    jobs += [
        prometheus.ScrapeJob(
            name,
            prometheus.FixedTargets([f"127.0.0.1:{address}"]),
            prometheus.SERVICE_SCRAPE_SECONDS,
            server_name="localhost",
            ca_file=str(stack.ca),
        )
        for name, address in (*addresses.items(), ("gateway", str(others["gateway"])))
    ]
    jobs += [
        prometheus.ScrapeJob(name, prometheus.FixedTargets([f"127.0.0.1:{others[name]}"]))
        for name in ("postgresql", "node")
    ]
    document = prometheus.configuration(jobs, alertmanagers=[], external_labels={"stack": "test"})
    (directory / "prometheus.yml").write_text(yaml.safe_dump(document))
    (directory / prometheus.RULES_FILE).write_text(
        yaml.safe_dump(rule_groups("https://github.com/grandmodel/grandmodel"))
    )
    with running(
        program("prometheus", "prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        log=directory / "prometheus.log",
    ):
        yield Prometheus(port)


def use(stack: RunningStack, gateway: GatewayConfig) -> None:
    """Some of everything that is counted: decisions, actions, trainings, strangers."""
    context = ssl.create_default_context(cafile=str(stack.ca))
    headers = {"Authorization": f"Bearer {stack.token}"}
    with httpx.Client(base_url=f"https://localhost:{gateway.https_port}", verify=context, timeout=60) as client:
        for path, document in (
            ("strategic/process", MATRIX),
            ("tactical/act", {"market_data": {"data": WINDOW}}),
            ("tactical/train", {"training_data": {"episodes": 1, "data": WINDOW}}),
        ):
            answer = client.post(f"/api/{path}", json=document, headers=headers)
            assert answer.status_code == 200, answer.text
            assert client.post(f"/api/{path}", json=document).status_code == 401


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after every target was scraped twice and every rule evaluated."""
    directory = tmp_path_factory.mktemp("scrape")
    options = StackOptions(
        directory=directory / "system",
        strategic_port=free_port(),
        tactical_port=free_port(),
        environment={Env.DRAIN_SECONDS.value: "0"},
    )
    with contextlib.ExitStack() as cleanup:
        stack, _ = cleanup.enter_context(running_stack(options))
        (directory / "gateway").mkdir()
        gateway = cleanup.enter_context(running_gateway(stack, directory / "gateway"))
        ports = cleanup.enter_context(running_exporters(stack, directory))
        found = cleanup.enter_context(running_prometheus(stack, {**ports, "gateway": gateway.private_port}, directory))
        use(stack, gateway)
        wait_for_samples(found)
        use(stack, gateway)
        wait_for_samples(found, more=2)
        yield found


def wait_for_samples(server: Prometheus, *, more: int = 1) -> None:
    """Until every target was scraped ``more`` times from now on."""
    began, deadline = time.time(), time.monotonic() + 120
    query = f"count_over_time(up[{{}}s]) >= {more}"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            seconds = max(1, int(time.time() - began))
            if len(server.ask("query", query=query.format(seconds))["result"]) == 6:
                return
        time.sleep(0.5)
    pytest.fail(f"not scraped: { {job: t['lastError'] for job, t in server.targets().items()} }")


def test_every_target_is_scraped_over_what_the_configuration_says(server: Prometheus) -> None:
    targets = server.targets()
    assert set(targets) == {"prometheus", "strategic", "tactical", "gateway", "postgresql", "node"}
    assert {job: target["lastError"] for job, target in targets.items()} == dict.fromkeys(targets, "")
    for job in (*(contract.service.value for contract in SERVICES), "gateway"):
        assert targets[job]["scrapeUrl"].startswith("https://")


EXPRESSIONS = [*(a.expression for a in all_alerts()), *(r["expr"] for r in recording_rules()), *queries()]


@pytest.mark.parametrize(
    "name", sorted({n for text in EXPRESSIONS for n in named(promql_parser.parse(text))} - ELSEWHERE)
)
def test_a_series_that_is_named_anywhere_was_scraped(server: Prometheus, name: str) -> None:
    found = server.ask("series", **{"match[]": name})
    assert found or name in QUIET, f"nobody exports {name}"


@pytest.mark.parametrize("exporter", ["prometheus", "gateway", "python", "postgres", "node"])
def test_an_exporter_has_every_series_that_it_is_said_to_have(server: Prometheus, exporter: str) -> None:
    missing = {name for name in EXPORTED[exporter] - ELSEWHERE - QUIET if not server.ask("series", **{"match[]": name})}
    assert missing == set()


@pytest.mark.parametrize("query", sorted({q for q in queries() if not set(named(promql_parser.parse(q))) & ELSEWHERE}))
def test_a_panel_has_something_to_show(server: Prometheus, query: str) -> None:
    assert server.ask("query", query=query)["result"], f"nothing is found by {query}"


def test_every_rule_is_evaluated_without_an_error_and_no_alert_fires_on_a_well_system(server: Prometheus) -> None:
    rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(all_alerts()) + len(recording_rules())
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] == "err"} == {}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
