"""The strategic service in a process of its own, as production runs it: as the application role, with workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from app.contract import Service
from app.service.tokens import mint_token
from ops.local.postgres import replace_database
from ops.local.process import children, free_port
from tests.conftest import NewDatabase

SECRET = "a secret of thirty-two bytes and more"
APP_PASSWORD = "the application's"
REPOSITORY = Path(__file__).parents[3]
PROCESS = "/api/strategic/process"


def as_application(admin_url: str) -> str:
    """The URL of the same database for the role that the service runs as."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE strategic_app LOGIN PASSWORD '{APP_PASSWORD.replace(chr(39), chr(39) * 2)}'")
    name = admin_url.rpartition("/")[2]
    return replace_database(admin_url, name, user="strategic_app", password=APP_PASSWORD)


@dataclass
class StrategicServer:
    """A running service. ``workers`` above 1 share the port."""

    database_url: str
    cache_url: str
    directory: Path
    workers: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "strategic.log"

    def start(self) -> None:
        settings = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.cache_url,
            "JWT_SECRET": SECRET,
            "ENVIRONMENT": "test",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "WORKERS": str(self.workers),
            "DRAIN_SECONDS": "0",
            "RATE_LIMIT_PER_MINUTE": "1000000000",
            "STRATEGIC_COMMIT_TIMEOUT": "3",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.strategic.main"],
                env={**os.environ, **settings, **self.environment},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self, timeout: float = 240.0) -> None:
        deadline = time.monotonic() + timeout
        answer = "no answer"
        with self.client() as client:
            while time.monotonic() < deadline:
                assert self._process is not None
                assert self._process.poll() is None, self.log.read_text()[-3000:]
                try:
                    response = client.get("/ready")
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if response.status_code == 200:
                    return
                answer = response.text
                time.sleep(0.05)
        raise AssertionError(f"not ready: {answer}\n{self.log.read_text()[-3000:]}")

    def peak_memory(self) -> int:
        """Bytes that the largest process of the service has held at one time (VmHWM)."""
        assert self._process is not None
        pids = [self._process.pid, *children(self._process.pid)]
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return max(1024 * int(status.partition("VmHWM:")[2].split()[0]) for status in statuses)

    def kill(self) -> None:
        """``kill -9`` of the service with all its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        self._process = None
        return code

    def headers(self, *roles: str, subject: str = "tester") -> dict[str, str]:
        return {"Authorization": f"Bearer {mint_token(SECRET, subject=subject, roles=roles or ('trader',))}"}

    def client(self, *roles: str, subject: str = "tester") -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=self.headers(*roles, subject=subject), timeout=60
        )


@pytest.fixture(scope="module")
def module_database(new_database: NewDatabase) -> str:
    """URL of a database for a whole module, as its superuser."""
    return new_database(Service.STRATEGIC)


@pytest.fixture(scope="module")
def server(module_database: str, cache: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrategicServer]:
    """One running service with two workers for a whole module."""
    running = StrategicServer(as_application(module_database), cache, tmp_path_factory.mktemp("strategic"), workers=2)
    running.start()
    try:
        running.wait_until_ready()
        yield running
        assert running.stop() == 0
    finally:
        running.kill()
