"""What ``compose.yaml`` mounts: configuration, certificates and passwords of a system on a laptop.

``python -m ops.laptop`` renders them into ``build/compose`` with the same code that renders the cluster's. Passwords
are made once and kept; everything else is rendered anew.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from app.contract import SERVICES, STRATEGIC, TACTICAL, Env, ServiceContract
from app.service.migrations import Roles
from app.service.migrations.roles import password_variable
from infra.gateway.nginx import GatewayConfig, Upstream, render
from infra.monitoring import prometheus
from infra.monitoring.alerts import rule_groups
from infra.monitoring.dashboards import dashboards
from ops.local.certificates import issue_certificates

DIRECTORY: Final = Path("build/compose")
_REPOSITORY: Final = "https://github.com/grandmodel/grandmodel"
_NAMES: Final = ("localhost", "strategic", "tactical", "gateway")


def password(directory: Path, name: str) -> str:
    """The password called ``name``; made at the first call."""
    file = directory / "secrets" / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32), encoding="utf-8")
    return file.read_text(encoding="utf-8")


def gateway_configuration() -> str:
    """``nginx.conf`` of the laptop: both services by their compose names."""
    upstreams = [
        Upstream(
            name=contract.service,
            api_prefix=contract.api_prefix,
            servers=[f"{contract.service}:{contract.port}"],
            server_name=contract.service,
            streaming_prefix=f"{TACTICAL.api_prefix}/jobs" if contract is TACTICAL else None,
        )
        for contract in SERVICES
    ]
    return render(GatewayConfig(upstreams=upstreams, tls_directory="/etc/gateway-tls"))


def prometheus_configuration() -> dict[str, Any]:
    """Prometheus scrapes itself and both services."""
    jobs = [prometheus.ScrapeJob("prometheus", prometheus.FixedTargets(["localhost:9090"]))]
    jobs += [
        prometheus.ScrapeJob(
            contract.service.value,
            prometheus.FixedTargets([f"{contract.service}:{contract.port}"]),
            interval_seconds=prometheus.SERVICE_SCRAPE_SECONDS,
            server_name=contract.service.value,
            ca_file="/etc/prometheus-tls/ca.crt",
        )
        for contract in SERVICES
    ]
    return prometheus.configuration(jobs, alertmanagers=[], external_labels={"stack": "laptop"})


def service_variables(directory: Path, contract: ServiceContract) -> dict[str, str]:
    """Environment of one service: its own database role, and nobody else's."""
    role = Roles.of(contract.service).app
    database = f"postgresql://{role}:{password(directory, role)}@postgres:5432/{contract.database}"
    variables = {
        Env.DATABASE_URL: database,
        "PORT": str(contract.port),
        "WORKERS": "2" if contract is STRATEGIC else "1",
    }
    if contract is TACTICAL:
        variables[Env.MODEL_STORE_URL] = "file:///models"
    return {str(name): value for name, value in variables.items()}


def migration_variables(directory: Path, contract: ServiceContract) -> dict[str, str]:
    """Environment of the migration job: the owner of the server, and the passwords that roles shall have."""
    owner = password(directory, "postgres-password")
    roles = Roles.of(contract.service).all()
    return {
        str(Env.DATABASE_URL): f"postgresql://postgres:{owner}@postgres:5432/{contract.database}",
        **{password_variable(role): password(directory, role) for role in roles},
    }


def render_all(directory: Path) -> list[Path]:
    """Write everything below ``directory``; returns the files."""
    written: list[Path] = []

    def write(name: str, text: str, mode: int = 0o644) -> None:
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=mode)
        file.write_text(text, encoding="utf-8")
        written.append(file)

    cache_password = password(directory, "cache-password")
    shared = {
        Env.ENVIRONMENT: "development",
        Env.JWT_SECRET: password(directory, "jwt-secret"),
        Env.REDIS_URL: f"redis://:{cache_password}@cache:6379/0",
        Env.SSL_ENABLED: "true",
        Env.SSL_CERT_PATH: "/tls/tls.crt",
        Env.SSL_KEY_PATH: "/tls/tls.key",
        "HOST": "0.0.0.0",  # noqa: S104 -- inside its container
    }
    write("service.env", _environment({str(name): value for name, value in shared.items()}), 0o600)
    for contract in SERVICES:
        write(f"{contract.service}.env", _environment(service_variables(directory, contract)), 0o600)
        write(f"migrate-{contract.service}.env", _environment(migration_variables(directory, contract)), 0o600)
    # A file would be as unreadable to Grafana's own user as it is to everybody's: Compose mounts secrets as they are.
    write("grafana.env", _environment({"GF_SECURITY_ADMIN_PASSWORD": password(directory, "grafana-password")}), 0o600)
    write("valkey.conf", f"requirepass {cache_password}\nmaxmemory 256mb\nmaxmemory-policy volatile-lru\n")
    write("gateway/nginx.conf", gateway_configuration())
    write("prometheus/prometheus.yml", yaml.safe_dump(prometheus_configuration(), sort_keys=False))
    write(f"prometheus/{prometheus.RULES_FILE}", yaml.safe_dump(rule_groups(_REPOSITORY), sort_keys=False))
    for name, text in dashboards().items():
        write(f"grafana/dashboards/{name}", text)
    source = {"name": "Prometheus", "uid": "prometheus", "type": "prometheus", "url": "http://prometheus:9090"}
    sources = {"apiVersion": 1, "datasources": [{**source, "access": "proxy", "isDefault": True}]}
    write("grafana/provisioning/datasources/prometheus.yml", yaml.safe_dump(sources))
    provider = {"name": "GrandModel", "type": "file", "options": {"path": "/var/lib/grafana/dashboards"}}
    write("grafana/provisioning/dashboards/grandmodel.yml", yaml.safe_dump({"apiVersion": 1, "providers": [provider]}))
    written += _certificates(directory / "tls")
    return written


def _certificates(directory: Path) -> list[Path]:
    """Certificates under the names that the gateway and the services read."""
    issued = issue_certificates(directory, names=_NAMES)
    names = {"ca.crt": issued.ca, "tls.crt": issued.certificate, "tls.key": issued.key}
    for name, source in names.items():
        # Read by the containers' own user, whose id is nobody's on this machine.
        target = directory / name
        target.write_bytes(source.read_bytes())
        target.chmod(0o644)
    return [directory / name for name in names]


def _environment(variables: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def main() -> None:
    """Render, and say what to do next."""
    argparse.ArgumentParser(prog="python -m ops.laptop", description=__doc__).parse_args()
    files = render_all(DIRECTORY)
    print(f"{len(files)} files in {DIRECTORY}; now: docker compose up --build", file=sys.stderr)


if __name__ == "__main__":
    main()
