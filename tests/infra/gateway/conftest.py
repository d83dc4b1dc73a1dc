"""The real nginx, with the rendered configuration, in front of real TLS servers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.gateway.nginx import GatewayConfig, Upstream, render
from ops.local.certificates import Certificates, issue_certificates

SERVER_NAME = "service.internal"


class Recorder(BaseHTTPRequestHandler):
    """Answers with what it was sent; ``/slow`` takes a second, ``/big`` is worth compressing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {"path": self.path, "headers": dict(self.headers), "server": self.connection.getsockname()[1]}
        ).encode()
        if self.path.endswith("/big"):
            body = b'{"filler":"' + b"x" * 20_000 + b'"}'
        if self.path.endswith("/slow"):
            time.sleep(1)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        remaining = int(self.headers["Content-Length"])
        while remaining:
            remaining -= len(self.rfile.read(min(remaining, 1 << 20)))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Silence."""


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A handshake that fails is what some tests are about."""


def serve_tls(certificates: Certificates) -> QuietServer:
    server = QuietServer(("127.0.0.1", 0), Recorder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningGateway:
    config: GatewayConfig
    certificates: Certificates
    directory: Path
    servers: list[QuietServer] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.config.https_port}"

    @property
    def plain_url(self) -> str:
        return f"http://localhost:{self.config.http_port}"

    @property
    def private_url(self) -> str:
        return f"https://localhost:{self.config.private_port}"

    def client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        return httpx.Client(base_url=self.url, verify=context, trust_env=False)


def nginx_program() -> str:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.fail("nginx is missing: apt-get install nginx-light")
    return program


def start(config: GatewayConfig, directory: Path) -> subprocess.Popen[bytes]:
    file = directory / "nginx.conf"
    file.write_text(render(config), encoding="utf-8")
    command = [nginx_program(), "-c", str(file), "-e", str(directory / "start.log"), "-g", "daemon off;"]
    log = (directory / "nginx.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", config.https_port)) == 0:
                return process
        if process.poll() is not None:
            pytest.fail((directory / "nginx.log").read_text())
        time.sleep(0.02)
    process.kill()
    pytest.fail("nginx did not listen within 4 s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue_certificates(tmp_path_factory.mktemp("tls"), names=("localhost", SERVER_NAME))


@pytest.fixture(scope="session")
def tls_directory(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mounted")
    shutil.copy(certificates.certificate, directory / "tls.crt")
    shutil.copy(certificates.key, directory / "tls.key")
    shutil.copy(certificates.ca, directory / "ca.crt")
    for file in directory.iterdir():
        file.chmod(0o644)  # the workers of a nginx that root started are nobody
    directory.chmod(0o755)
    directory.parent.chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def template(tls_directory: Path) -> GatewayConfig:
    return GatewayConfig(upstreams=(), tls_directory=str(tls_directory), private_networks=("127.0.0.1/32",))


def upstream(name: str, servers: list[str], *, server_name: str = SERVER_NAME) -> Upstream:
    streaming = "/api/tactical/jobs/" if name == "tactical" else None
    return Upstream(name, f"/api/{name}", servers, server_name, streaming)


Run = Callable[..., RunningGateway]


@pytest.fixture
def run(template: GatewayConfig, certificates: Certificates, tmp_path: Path) -> Iterator[Run]:
    """Starts gateways with changed settings, and stops them."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(**changes: Any) -> RunningGateway:
        ports = {name: free_port() for name in ("https_port", "http_port", "private_port")}
        directory = tmp_path / f"gateway-{len(processes)}"
        directory.mkdir()
        work: dict[str, Any] = {"working_directory": str(directory), **ports, **changes}
        if nginx_runs_as_root():
            work.setdefault("extra_main", ("user root;",))
        config = replace(template, **work)
        processes.append(start(config, directory))
        return RunningGateway(config, certificates, directory)

    yield begin
    for process in processes:
        stop(process)


def nginx_runs_as_root() -> bool:
    return os.geteuid() == 0


@pytest.fixture
def serve(certificates: Certificates) -> Iterator[Callable[..., QuietServer]]:
    """Starts TLS servers with the trusted certificate, or another one, and stops them."""
    servers: list[QuietServer] = []

    def begin(other: Certificates | None = None) -> QuietServer:
        servers.append(serve_tls(other or certificates))
        return servers[-1]

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def gateway(
    template: GatewayConfig, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway in front of two servers a service, with a limit that does not disturb."""
    servers = [serve_tls(certificates) for _ in range(3)]
    names = [f"127.0.0.1:{server.server_port}" for server in servers]
    directory = tmp_path_factory.mktemp("gateway")
    config = replace(
        template,
        upstreams=(upstream("strategic", names[:2]), upstream("tactical", names[2:])),
        https_port=free_port(),
        http_port=free_port(),
        private_port=free_port(),
        working_directory=str(directory),
        rate=1000,
        burst=1000,
        extra_main=("user root;",) if nginx_runs_as_root() else (),
    )
    process = start(config, directory)
    yield RunningGateway(config, certificates, directory, servers)
    stop(process)
    for server in servers:
        server.shutdown()
