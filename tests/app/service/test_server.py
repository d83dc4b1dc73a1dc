"""A served process: drain, TLS, certificate renewal, several workers, recovery of its connections."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from app.service.tokens import mint_token
from ops.local.certificates import Certificates, issue_certificates
from ops.local.process import free_port

SECRET = "a secret of thirty-two bytes and more"
REPOSITORY = Path(__file__).parents[3]
SERVICE = """
import asyncio, contextlib, os
from fastapi import APIRouter, Depends
from app.contract import STRATEGIC
from app.service import tls
from app.service.application import ServiceDefinition, build, require
from app.service.logs import configure_logging
from app.service.permissions import Permission
from app.service.server import serve
from app.service.settings import ServiceSettings, load_settings

tls.POLL_SECONDS = 0.1
routes = APIRouter()

@routes.get("/slow", dependencies=[Depends(require(Permission.READ))])
async def slow(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()

@contextlib.asynccontextmanager
async def nothing_more(_runtime):
    yield

def application():
    configure_logging("INFO", "strategic")
    definition = ServiceDefinition(STRATEGIC, "Test", "1", "Test", nothing_more, [routes])
    return build(definition, load_settings(ServiceSettings)).asgi

if __name__ == "__main__":
    serve("served:application", load_settings(ServiceSettings), port=8000)
"""


class Served:
    def __init__(self, directory: Path, environment: dict[str, str], verify: ssl.SSLContext | None) -> None:
        (directory / "served.py").write_text(SERVICE)
        self.port = free_port()
        scheme = "http" if verify is None else "https"
        token = mint_token(SECRET, subject="tester", roles=["admin"])
        self._options = {
            "base_url": f"{scheme}://localhost:{self.port}",
            "headers": {"Authorization": f"Bearer {token}"},
            "verify": verify if verify is not None else True,
            "timeout": 30.0,
        }
        self.log = directory / "service.log"
        settings = {
            "JWT_SECRET": SECRET,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PYTHONPATH": f"{directory}:{REPOSITORY}",
            "RATE_LIMIT_PER_MINUTE": "100000",
            "DRAIN_SECONDS": "0",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, directory / "served.py"],
                env={**os.environ, **settings, **environment},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.client().get("/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def client(self) -> httpx.Client:
        return httpx.Client(**self._options)  # type: ignore[arg-type] # a plain dictionary of options

    def get_slow(self, seconds: float) -> httpx.Response:
        with self.client() as client:
            return client.get(f"/api/strategic/slow?seconds={seconds}")


@pytest.fixture
def serve(postgres: str, cache: str, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(verify: ssl.SSLContext | None = None, **environment: str) -> Served:
        whole = {"DATABASE_URL": postgres, "REDIS_URL": cache, **environment}
        started.append(Served(tmp_path, whole, verify))
        return started[-1]

    yield start
    for served in started:
        served.process.terminate()
        served.process.wait(30)


def test_on_sigterm_readiness_fails_first_and_requests_in_flight_finish(serve: Callable[..., Served]) -> None:
    served = serve(DRAIN_SECONDS="1.5")
    answers: list[int] = []
    request = threading.Thread(target=lambda: answers.append(served.get_slow(3.0).status_code))
    request.start()
    time.sleep(0.3)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    ready = served.client().get("/ready")
    assert ready.status_code == 503
    assert ready.json()["missing"] == {"service": "is stopping"}
    assert served.get_slow(0.0).status_code == 200  # the load balancer has not noticed yet
    served.process.wait(20)
    request.join()
    assert answers == [200]
    log = served.log.read_text()
    assert log.index('"draining"') < log.index('"Application shutdown complete."')
    assert '"path":"/api/strategic/slow","status":200' in log  # the audit log is written to its end


def test_clients_that_say_no_hello_or_no_goodbye_do_not_hold_up_the_stop(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    certificates = issue_certificates(tmp_path / "tls")
    for workers in ("1", "2"):
        paths = {"SSL_CERT_PATH": str(certificates.certificate), "SSL_KEY_PATH": str(certificates.key)}
        served = serve(_trust(certificates), WORKERS=workers, SSL_ENABLED="true", **paths)
        with (
            socket.create_connection(("localhost", served.port)),
            socket.create_connection(("localhost", served.port)) as plain,
            _trust(certificates).wrap_socket(plain, server_hostname="localhost") as idle,
        ):
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
            served.process.terminate()
            served.process.wait(8)


def _trust(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca)


def test_a_renewed_certificate_is_served_without_a_restart(serve: Callable[..., Served], tmp_path: Path) -> None:
    old = issue_certificates(tmp_path / "old")
    served = serve(
        _trust(old),
        SSL_ENABLED="true",
        SSL_CERT_PATH=str(old.certificate),
        SSL_KEY_PATH=str(old.key),
    )
    assert served.get_slow(0.0).status_code == 200
    new = issue_certificates(tmp_path / "new")
    old.key.write_bytes(new.key.read_bytes())
    old.certificate.write_bytes(new.certificate.read_bytes())
    deadline = time.monotonic() + 10
    trusted = False
    while not trusted and time.monotonic() < deadline:
        time.sleep(0.1)
        with httpx.Client(verify=_trust(new)) as client:
            try:
                trusted = client.get(f"https://localhost:{served.port}/health").status_code == 200
            except httpx.TransportError:
                continue
    assert trusted
    with pytest.raises(ssl.SSLError):
        ssl.get_server_certificate(("localhost", served.port), ca_certs=str(old.ca))


@pytest.mark.slow
def test_workers_share_a_port_and_a_scrape_answers_for_all(serve: Callable[..., Served]) -> None:
    served = serve(WORKERS="2")
    time.sleep(1.0)
    clients = [served.client() for _ in range(6)]
    processes = {process for _ in range(10) for process in _serving(clients)}
    assert len(processes) == 2
    text = served.client().get("/metrics").text
    counted = re.search(r'http_requests_total\{.*route="/api/strategic/slow",status="200"\} (\d+)', text)
    assert counted is not None
    assert int(counted.group(1)) == 60
    os.kill(processes.pop(), signal.SIGKILL)
    deadline = time.monotonic() + 20
    found: set[int] = set()
    while len(found - processes) < 1 and time.monotonic() < deadline:
        try:
            found.add(served.get_slow(0.0).json())
        except httpx.TransportError:
            continue
    assert found - processes  # another worker has taken the place of the dead one


def _serving(clients: list[httpx.Client]) -> Counter[int]:
    """Connections of open clients by the worker that answers them."""
    return Counter(client.get("/api/strategic/slow?seconds=0").json() for client in clients)


@pytest.mark.slow
def test_workers_share_connections_fairly(serve: Callable[..., Served], tmp_path: Path) -> None:
    certificates = issue_certificates(tmp_path / "tls")
    paths = {"SSL_CERT_PATH": str(certificates.certificate), "SSL_KEY_PATH": str(certificates.key)}
    served = serve(_trust(certificates), WORKERS="2", SSL_ENABLED="true", **paths)
    time.sleep(1.0)
    for _ in range(30):  # connections that never get through their handshake count for nobody
        with socket.create_connection(("localhost", served.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(3):
        clients = [served.client() for _ in range(24)]
        shares = _serving(clients)
        assert len(shares) == 2
        assert max(shares.values()) <= 13
        for client in clients[::3]:
            client.close()
        clients = clients[1::3] + clients[2::3] + [served.client() for _ in range(8)]
        shares = _serving(clients)
        assert max(shares.values()) <= 13
        for client in clients:
            client.close()


@pytest.mark.slow
def test_a_worker_that_hangs_leaves_new_connections_to_the_others(serve: Callable[..., Served]) -> None:
    served = serve(WORKERS="2")
    time.sleep(1.0)
    clients = [served.client() for _ in range(8)]
    hanging, working = _serving(clients)
    for client in clients:
        client.close()
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert _serving([served.client() for _ in range(20)]) == {working: 20}
    finally:
        os.kill(hanging, signal.SIGCONT)


@pytest.mark.slow
def test_connections_that_the_database_ends_are_replaced(serve: Callable[..., Served], postgres: str) -> None:
    served = serve()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'grandmodel-strategic'"
        )
    deadline = time.monotonic() + 10
    streak = 0
    while streak < 30 and time.monotonic() < deadline:
        streak = streak + 1 if served.client().get("/ready").status_code == 200 else 0
        time.sleep(0.05)
    assert streak == 30
