"""The composition for a laptop: everything that it mounts is rendered, and nothing in it is secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import laptop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compose")
    laptop.render_all(directory)
    return directory


def composition() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return document


def test_everything_that_is_mounted_is_rendered(rendered: Path) -> None:
    mounted = {secret["file"] for secret in composition()["secrets"].values()}
    for service in composition()["services"].values():
        mounted |= {volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")}
        files = service.get("env_file", [])
        mounted |= set([files] if isinstance(files, str) else files)
    assert len(mounted) > 10
    missing = {name for name in mounted if not (rendered / Path(name).relative_to("build/compose")).exists()}
    assert missing == set()


def check_schema(file: Path) -> subprocess.CompletedProcess[str]:
    """Against the schema of the Compose specification, which check-jsonschema carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_composition_meets_the_schema_of_the_specification(tmp_path: Path) -> None:
    assert check_schema(ROOT / "compose.yaml").returncode == 0
    broken = composition()
    broken["services"]["gateway"]["cap_dorp"] = ["ALL"]
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(broken), encoding="utf-8")
    refused = check_schema(tmp_path / "compose.yaml")
    assert refused.returncode == 1
    assert "cap_dorp" in refused.stdout


def test_every_dependency_and_every_port_stays_on_the_laptop() -> None:
    services = composition()["services"]
    for service in services.values():
        assert set(service.get("depends_on", [])) <= services.keys()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_composition_holds_no_secret_and_secrets_are_kept(rendered: Path) -> None:
    texts = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    passwords = [file.read_text(encoding="utf-8") for file in (rendered / "secrets").iterdir()]
    assert not [password for password in passwords if password in texts]
    laptop.render_all(rendered)
    assert passwords == [file.read_text(encoding="utf-8") for file in (rendered / "secrets").iterdir()]
    for name in ("service.env", "strategic.env", "migrate-strategic.env", "grafana.env", "secrets/jwt-secret"):
        assert (rendered / name).stat().st_mode & 0o077 == 0


def test_a_service_knows_its_own_database_password_only(rendered: Path) -> None:
    strategic = (rendered / "strategic.env").read_text(encoding="utf-8")
    for other in ("tactical_app", "strategic_owner", "postgres-password"):
        assert (rendered / "secrets" / other).read_text(encoding="utf-8") not in strategic


def test_prometheus_takes_the_configuration(rendered: Path) -> None:
    subprocess.run(["promtool", "check", "rules", str(rendered / "prometheus/rules.yml")], check=True)
    configuration = yaml.safe_load((rendered / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert [job["job_name"] for job in configuration["scrape_configs"]] == ["prometheus", "strategic", "tactical"]


def test_every_dashboard_is_provisioned(rendered: Path) -> None:
    dashboards = list((rendered / "grafana/dashboards").iterdir())
    assert {file.stem for file in dashboards} == {"system", "strategic", "tactical"}
    assert all(json.loads(file.read_text(encoding="utf-8"))["panels"] for file in dashboards)
