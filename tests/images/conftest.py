"""The real Docker engine, a base image made of Debian's packages, a registry, and the images that pass through them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.contract import MATRIX_BARS, MATRIX_FEATURES, Service
from ops.local.certificates import issue_certificates
from ops.local.process import free_port
from ops.strategic_load import PROCESS_PATH
from ops.validate import TRAIN_PATH, training_window

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
}
CANARY = "canary-" + secrets.token_hex(16)
"""What an operator might have lying about, and must not get into an image."""


def run(command: Sequence[str], *, timeout: float = 900, environment: Mapping[str, str] | None = None) -> str:
    """Standard output and error of a command; a failure shows what it said."""
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=environment, cwd=ROOT
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout if "logs" not in command else result.stdout + result.stderr


@dataclass(frozen=True)
class Docker:
    """A client of the tests' own engine."""

    socket: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of any client: an engine of the machine's is never asked."""
        return {**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_HOST": f"unix://{self.socket}"}

    def __call__(self, *arguments: str, timeout: float = 900) -> str:
        # Two clients may be installed; Debian's, beside its engine, has BuildKit built in.
        client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        return run([client, *arguments], timeout=timeout, environment=self.environment)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    for command, package in REQUIRED.items():
        assert shutil.which(command), f"{command} is missing: apt-get install {package}"
    directory = tmp_path_factory.mktemp("docker")
    listening = directory / "docker.sock"
    log = (directory / "dockerd.log").open("wb")
    engine = subprocess.Popen(
        [
            "dockerd",
            f"--host=unix://{listening}",
            f"--data-root={directory / 'data'}",
            f"--exec-root={directory / 'exec'}",
            f"--pidfile={directory / 'dockerd.pid'}",
            "--bridge=none",
            "--iptables=false",
        ],
        stdout=log,
        stderr=log,
    )
    client = Docker(listening)
    try:
        wait(lambda: listening.exists() and engine.poll() is None and bool(client("version")), 60, "dockerd")
        yield client
    finally:
        engine.terminate()
        engine.wait(60)
        log.close()
        # What a container on the host's network leaves mounted, so that pytest can clear the folder.
        subprocess.run(["umount", "--quiet", str(directory / "exec/netns/default")], check=False)


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (AssertionError, OSError):
            pass
        assert time.monotonic() < deadline, f"{what} did not come up within {seconds} s"
        time.sleep(0.3)


@pytest.fixture(scope="session")
def base_image(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian with Python 3.11, made here, since no registry of images can be counted on."""
    tree = tmp_path_factory.mktemp("base") / "root"
    packages = "python3.11,libgomp1,ca-certificates"
    run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(tree)])
    archive = tree.with_suffix(".tar")
    excluded = [
        f"--exclude=./{path}/*" for path in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "proc", "sys")
    ]
    run(["tar", "--numeric-owner", *excluded, "-cf", str(archive), "-C", str(tree), "."])
    shutil.rmtree(tree)
    docker("import", str(archive), "grandmodel-base:test")
    archive.unlink()
    return "grandmodel-base:test"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a registry on loopback."""
    directory = tmp_path_factory.mktemp("registry")
    port = free_port()
    configuration = directory / "config.yml"
    storage = f"storage:\n  filesystem:\n    rootdirectory: {directory / 'data'}\n"
    configuration.write_text(f"version: 0.1\n{storage}http:\n  addr: 127.0.0.1:{port}\n", encoding="utf-8")
    log = (directory / "registry.log").open("wb")
    server = subprocess.Popen(["docker-registry", "serve", str(configuration)], stdout=log, stderr=log)

    def listening() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    try:
        wait(listening, 20, "docker-registry")
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@dataclass(frozen=True)
class Built:
    """An image in the registry, by digest."""

    service: Service
    reference: str
    layers: tuple[str, ...]
    """Digests of its uncompressed layers, lowest first."""
    size_mib: float


@pytest.fixture(scope="session")
def build(docker: Docker, base_image: str) -> Callable[..., str]:
    """Builds a service's image as the README says, without a network, under a tag; gives the tag."""
    authorities = ROOT / "build" / "authorities" / "global-bundle.pem"
    if not authorities.exists():  # `make authorities` needs the internet; any authority shows that the image carries it
        authorities.parent.mkdir(parents=True, exist_ok=True)
        authorities.write_bytes(issue_certificates(ROOT / "build" / "authorities" / "own").ca.read_bytes())

    @memoize
    def wheels(service: Service) -> None:
        run(["make", "wheels", f"WHEELS={service}-cpu"])

    def build_(service: Service, tag: str, *options: str) -> str:
        wheels(service)
        planted = [ROOT / "build" / "canary.env", ROOT / "app" / service / ".env", ROOT / "ops" / "canary.pem"]
        for file in planted:
            file.write_text(CANARY, encoding="utf-8")
        arguments = [f"--build-arg=BASE_IMAGE={base_image}", "--file", f"app/{service}/Dockerfile", "--tag", tag, "."]
        try:
            docker("build", "--quiet", "--network=none", *options, *arguments)
        finally:
            for file in planted:
                file.unlink()
        return tag

    return build_


@pytest.fixture(scope="session")
def images(docker: Docker, registry: str, build: Callable[..., str]) -> Callable[[Service], Built]:
    """The image of a service: built, pushed, pulled by digest. Once in a session, and only if asked for."""

    @memoize
    def image(service: Service) -> Built:
        start = time.monotonic()
        tag = build(service, f"{registry}/grandmodel/{service}:test")
        seconds = time.monotonic() - start
        docker("push", "--quiet", tag)
        description = json.loads(docker("inspect", tag))[0]
        (reference,) = [name for name in description["RepoDigests"] if name.startswith(registry)]
        docker("rmi", "--force", tag)
        docker("pull", "--quiet", reference)
        size = description["Size"] / 2**20
        print(f"\n{service}: built in {seconds:.0f} s, {size:.0f} MiB, {reference}")
        return Built(service, reference, tuple(description["RootFS"]["Layers"]), size)

    return image


def let_containers_read(directory: Path) -> None:
    """Their users are not ours: every folder on the way that is closed to others opens, and files are readable."""
    for parent in (directory, *directory.parents):
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)


def client(url: str, ca: Path, token: str | None = None) -> httpx.Client:
    """Of a service or the gateway, over TLS that is verified."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    context = ssl.create_default_context(cafile=str(ca))
    return httpx.Client(base_url=url, verify=context, headers=headers, timeout=30)


def ask_for_work(service: Service, http: httpx.Client) -> dict[str, Any]:
    """What the service is there for: a decision on one matrix, or a training of the agents; its answer."""
    if service is Service.STRATEGIC:
        matrix = np.random.default_rng(7).normal(0, 0.5, (MATRIX_BARS, MATRIX_FEATURES)).round(4).tolist()
        market_data = {"timestamp": "2026-11-24T09:30:00Z", "data": matrix}
        answer = http.post(PROCESS_PATH, json={"market_data": market_data})
    else:
        answer = http.post(TRAIN_PATH, json={"training_data": {"episodes": 2, "data": training_window(7)}})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
