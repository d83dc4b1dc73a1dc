"""A whole system as `make serve` starts it, under the hands of whoever is on call."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from typer.testing import CliRunner, Result

from ops.cli import app
from ops.local.service_process import READY_TIMEOUT_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
runner = CliRunner()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directory of a running system, made by the command itself."""
    directory = tmp_path_factory.mktemp("system") / "state"
    output = (directory.parent / "serve.out").open("wb")
    command = [sys.executable, "-m", "ops", "serve", "--directory", str(directory), "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + 2 * READY_TIMEOUT_SECONDS
    while not (directory / "serve.json").exists():
        assert process.poll() is None, (directory.parent / "serve.out").read_text()
        assert time.monotonic() < deadline, (directory.parent / "serve.out").read_text()
        time.sleep(0.2)
    try:
        yield directory
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        output.close()
    assert not (directory / "serve.json").exists(), "a stopped system still describes itself as running"


def ops(system: Path, *arguments: str) -> Result:
    return runner.invoke(app, [*arguments, "--directory", str(system)])


def description(system: Path) -> Any:
    return json.loads((system / "serve.json").read_text(encoding="utf-8"))


def test_a_started_system_is_well_and_stays_well(system: Path) -> None:
    time.sleep(2)
    result = ops(system, "health", "--json")
    report = json.loads(result.stdout)
    assert [check for check in report["checks"] if check["status"] != "ok"] == []
    assert result.exit_code == 0
    assert len(report["checks"]) == 11


def test_only_its_owner_reads_its_description(system: Path) -> None:
    assert (system / "serve.json").stat().st_mode & 0o077 == 0


def test_a_validation_measures_and_reports_by_honest_names(system: Path, tmp_path: Path) -> None:
    result = ops(
        *(system, "validate", "--requests", "40", "--threads", "4", "--matrices", "8", "--trainings", "1"),
        *("--sustained", "1", "--report-directory", str(tmp_path), "--json"),
    )
    assert result.exit_code in (0, 1), result.output
    report = json.loads(result.stdout)
    assert report["health"]["checks"]
    assert [check for check in report["health"]["checks"] if check["status"] != "ok"] == []
    assert (report["burst"]["requests"], report["burst"]["matrices_per_request"]) == (40, 1)
    assert report["burst"]["failures"] == report["sustained"]["failures"] == 0
    assert 0 < report["sustained"]["requests"] <= 800  # within the minute that the rate limit gives a client
    wall, summed = (report["burst"][f"samples_per_second_by_{name}"] for name in ("wall_time", "sum_of_latencies"))
    # Four threads: the sum of latencies is up to four times the time that passed.
    assert wall > summed
    assert len(report["training_seconds"]) == 1
    assert "by wall time" in (tmp_path / "validation.md").read_text(encoding="utf-8")
    with psycopg.connect(description(system)["databases"]["strategic"]) as connection:
        row = connection.execute("SELECT count(*) FROM samples").fetchone()
    assert row is not None
    assert row[0] >= 40 + 8 * report["sustained"]["requests"]


def test_a_diagnosis_tells_much_and_no_secret(system: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    result = ops(system, "diagnose", "--output", str(bundle))
    assert result.exit_code == 0, result.output
    with tarfile.open(bundle) as archive:
        texts = {m.name: (archive.extractfile(m) or pytest.fail(m.name)).read().decode() for m in archive.getmembers()}
    assert {"health.json", "about.json", "strategic/metrics.txt", "logs/strategic.log"} <= texts.keys()
    running = description(system)
    secrets = [running["token"], *(url.split(":")[2].split("@")[0] for url in running["databases"].values())]
    secrets += json.loads((system / "secrets.json").read_text(encoding="utf-8"))["role_passwords"].values()
    for name, text in texts.items():
        assert not [secret for secret in secrets if secret in text], f"{name} holds a secret"


def test_maintenance_and_backup_work_beside_traffic(system: Path, tmp_path: Path) -> None:
    for service in ("strategic", "tactical"):
        assert ops(system, "maintain", service, "--json").exit_code == 0
        result = ops(system, "backup", service, "--to", str(tmp_path), "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["service"] == service


def test_a_model_goes_back_to_an_earlier_version_and_says_so_first(system: Path) -> None:
    window = [[0.01 * (bar % 5)] * 7 for bar in range(30)]
    running = description(system)
    context = ssl.create_default_context(cafile=running["ca_certificate"])
    headers = {"Authorization": f"Bearer {running['token']}"}
    versions = []
    with httpx.Client(base_url=running["tactical_url"], verify=context, headers=headers, timeout=60) as client:
        for _ in range(2):
            payload = {"training_data": {"episodes": 1, "data": window}}
            answer = client.post("/api/tactical/train", json=payload)
            assert answer.status_code == 200, answer.text
            versions.append(answer.json()["model_version"])
        assert client.post(f"/api/tactical/models/{versions[1]}/activate").status_code == 200
    planned = ops(system, "rollback", "model", "--to", versions[0], "--dry-run")
    assert f"{versions[1]} -> {versions[0]}" in planned.stdout.replace("\n", " ")
    assert ops(system, "rollback", "model", "--to", versions[0], "--yes").exit_code == 0
    refused = ops(system, "rollback", "model", "--to", "no-such-version", "--yes")
    assert refused.exit_code == 2
    assert "known versions" in refused.stderr


def test_an_emergency_stops_both_services_and_gives_them_back(system: Path) -> None:
    dry = ops(system, "emergency", "shutdown", "--reason", "drill", "--dry-run", "--json")
    assert json.loads(dry.stdout)["dry_run"] is True
    assert ops(system, "health").exit_code == 0
    assert ops(system, "emergency", "shutdown", "--reason", "drill", "--yes").exit_code == 0
    down = json.loads(ops(system, "health", "--json").stdout)
    failed = {check["name"] for check in down["checks"] if check["status"] != "ok"}
    assert {"strategic: alive", "tactical: alive"} <= failed
    assert "strategic database: durable" not in failed
    assert ops(system, "emergency", "recover", "--reason", "drill is over", "--yes").exit_code == 0
    assert ops(system, "health").exit_code == 0
