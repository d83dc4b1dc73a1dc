"""The real Docker engine, a base image made of Debian's packages, and a registry, all of the tests' own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.local.process import free_port

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
}


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

    def __call__(self, *arguments: str, timeout: float = 900) -> str:
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_HOST": f"unix://{self.socket}"}
        # Two clients may be installed; Debian's, beside its engine, has BuildKit built in.
        client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        return run([client, *arguments], timeout=timeout, environment=environment)


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
