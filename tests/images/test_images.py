"""The images, built by the real engine from the wheels of their locks: small enough, unprivileged, and they serve."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.contract import STRATEGIC, TACTICAL, Env, Service, ServiceContract
from ops.local.certificates import issue_certificates
from ops.local.process import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Docker = Callable[..., str]
"""Runs the client of the tests' own engine and gives its standard output."""

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-" + secrets.token_hex(16)
SIZE_LIMIT_MIB = {Service.STRATEGIC: 1200, Service.TACTICAL: 1700}


@dataclass(frozen=True)
class Built:
    """An image in the registry, by digest."""

    contract: ServiceContract
    reference: str
    build_seconds: float
    size_mib: float


@pytest.fixture(scope="module", params=[STRATEGIC, TACTICAL], ids=["strategic", "tactical"])
def image(request: pytest.FixtureRequest, docker: Docker, base_image: str, registry: str) -> Built:
    contract: ServiceContract = request.param
    service = contract.service
    wheels = ROOT / "build" / "wheels" / f"{service}-cpu"
    lock = f"app/{service}/requirements-cpu.lock"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    download += ["--require-hashes", "--dest", str(wheels), "--requirement", lock]
    subprocess.run(download, check=True, cwd=ROOT)
    authorities = ROOT / "build" / "authorities" / "global-bundle.pem"
    if not authorities.exists():  # `make authorities` needs the internet; any authority shows that the image carries it
        authorities.parent.mkdir(parents=True, exist_ok=True)
        authorities.write_bytes(issue_certificates(ROOT / "build" / "authorities" / "own").ca.read_bytes())
    # What an operator might have lying about must not get into an image.
    planted = ROOT / "build" / "canary.env"
    planted.write_text(CANARY, encoding="utf-8")
    tag = f"{registry}/grandmodel/{service}:test"
    start = time.monotonic()
    try:
        docker(
            "build",
            "--quiet",
            "--network=none",
            f"--build-arg=BASE_IMAGE={base_image}",
            "-f",
            f"app/{service}/Dockerfile",
            "-t",
            tag,
            ".",
        )
    finally:
        planted.unlink()
    seconds = time.monotonic() - start
    docker("push", "--quiet", tag)
    (reference,) = [r for r in json.loads(docker("inspect", tag))[0]["RepoDigests"] if r.startswith(registry)]
    size = json.loads(docker("inspect", tag))[0]["Size"] / 2**20
    docker("rmi", "--force", tag)
    docker("pull", "--quiet", reference)
    print(f"\n{service}: built in {seconds:.0f} s, {size:.0f} MiB, {reference}")
    return Built(contract, reference, seconds, size)


@pytest.fixture
def running(
    image: Built, docker: Docker, request: pytest.FixtureRequest, cache: str, tmp_path: Path
) -> Iterator[tuple[str, str, Path]]:
    """The image as Kubernetes runs it: read-only root, no capability, no privilege to gain; gives id, URL and CA."""
    service = image.contract.service
    database = request.getfixturevalue(f"{service}_database")
    certificates = issue_certificates(tmp_path / "tls")
    for file in (tmp_path / "tls").iterdir():
        file.chmod(0o644)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and str(directory).startswith("/tmp/"):  # noqa: S108
            directory.chmod(0o755)
    port = free_port()
    variables = {
        Env.ENVIRONMENT: "development",
        Env.DATABASE_URL: database,
        Env.REDIS_URL: cache,
        Env.JWT_SECRET: secrets.token_urlsafe(48),
        Env.SSL_ENABLED: "true",
        Env.SSL_CERT_PATH: "/tls/server.pem",
        Env.SSL_KEY_PATH: "/tls/server.key",
        Env.MODEL_STORE_URL: "file:///models",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
    }
    container = docker(
        "run",
        "--detach",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--network=host",
        "--tmpfs=/tmp:size=256m,mode=1777",
        "--tmpfs=/models:size=64m,uid=10001,gid=10001",
        f"--volume={tmp_path / 'tls'}:/tls:ro",
        *(f"--env={name}={value}" for name, value in variables.items()),
        image.reference,
    ).strip()
    try:
        yield container, f"https://localhost:{port}", certificates.ca
    finally:
        docker("rm", "--force", container)


def answers(url: str, ca: Path) -> bool:
    try:
        return httpx.get(url, verify=ssl.create_default_context(cafile=str(ca)), timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_container_without_any_privilege_becomes_ready_and_stops_gracefully(
    docker: Docker, running: tuple[str, str, Path]
) -> None:
    container, url, ca = running

    deadline = time.monotonic() + 120
    while not answers(f"{url}/ready", ca):
        assert json.loads(docker("inspect", container))[0]["State"]["Running"], docker("logs", container)
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.5)
    with pytest.raises(AssertionError, match="Read-only file system"):
        docker("exec", container, "touch", "/opt/grandmodel/x")
    assert docker("exec", container, "id", "-u").strip() == "10001"
    docker("stop", "--time", "30", container)
    assert json.loads(docker("inspect", container))[0]["State"]["ExitCode"] == 0


def test_an_image_says_what_it_is_and_how_it_feels(image: Built, docker: Docker) -> None:
    configuration = json.loads(docker("inspect", image.reference))[0]["Config"]
    assert configuration["User"] == "10001:10001"
    assert configuration["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert configuration["Healthcheck"]["Test"][-1] == str(image.contract.port)
    assert "@sha256:" in image.reference
    entry = ["run", "--rm", "--network=none", "--entrypoint=python", image.reference]
    program = "import ssl; ssl.create_default_context(cafile='/etc/ssl/rds/global-bundle.pem'); import ops.cli"
    docker(*entry, "-c", program)


def test_an_image_does_not_grow_unnoticed(image: Built) -> None:
    assert image.size_mib < SIZE_LIMIT_MIB[image.contract.service]


def test_no_layer_holds_a_secret(image: Built, docker: Docker, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), image.reference)
    names: list[str] = []
    with tarfile.open(archive) as layers:
        for member in layers.getmembers():
            stream = layers.extractfile(member)
            if not member.name.endswith("layer.tar") or stream is None:
                continue
            with tarfile.open(fileobj=stream) as layer:
                for entry in layer:
                    names.append(entry.name)
                    content = layer.extractfile(entry) if entry.isfile() and entry.size < 1 << 20 else None
                    assert content is None or CANARY.encode() not in content.read()
    assert names
    assert not [name for name in names if name.startswith("opt/grandmodel/src") and "test" in name.split("/")]
    assert CANARY not in docker("history", "--no-trunc", image.reference)
