from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.contract import Service
from app.service.tokens import mint_token
from ops.local.process import free_port

SECRET = "a secret of thirty-two bytes and more"
REPOSITORY = Path(__file__).parents[3]


@dataclass
class TacticalServer:
    """The tactical service in a process of its own, as production runs it."""

    database_url: str
    cache_url: str
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = (sys.executable, "-m", "app.tactical.main")
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def models(self) -> Path:
        return self.directory / "store"

    @property
    def log(self) -> Path:
        return self.directory / "service.log"

    def start(self, *, ready: bool = True) -> None:
        settings = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.cache_url,
            "JWT_SECRET": SECRET,
            "ENVIRONMENT": "test",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DRAIN_SECONDS": "0",
            "RATE_LIMIT_PER_MINUTE": "1000000",
            "MODEL_STORE_URL": self.models.as_uri(),
            "TACTICAL_JOB_LEASE_SECONDS": "3",
            "TACTICAL_CHECKPOINT_SECONDS": "0.2",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.launcher,
                env={**os.environ, **settings, **self.environment},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        answer = "no answer"
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            try:
                response = self.client().get("/ready")
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if response.status_code == 200:
                return
            answer = response.text
            time.sleep(0.05)
        raise AssertionError(f"not ready: {answer}\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        self._process = None
        return code

    def client(self, *roles: str, subject: str = "tester") -> httpx.Client:
        token = mint_token(SECRET, subject=subject, roles=roles or ("admin",))
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60.0,
        )

    def post(self, path: str, document: object, *roles: str, subject: str = "tester") -> httpx.Response:
        with self.client(*roles, subject=subject) as client:
            return client.post(f"/api/tactical/{path}", json=document)

    def get(self, path: str, *roles: str, subject: str = "tester") -> httpx.Response:
        with self.client(*roles, subject=subject) as client:
            return client.get(f"/api/tactical/{path}")

    def wait_for_job(self, job_id: str, *states: str, timeout: float = 90.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        job: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                response = self.get(f"jobs/{job_id}")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if response.status_code == 200:
                job = response.json()
                if job["state"] in states:
                    return job
            time.sleep(0.1)
        raise AssertionError(f"the job did not become {states}: {job}")


@pytest.fixture(scope="module")
def tactical_server(
    new_database: Callable[[Service], str], cache: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TacticalServer]:
    """One running service for a module."""
    server = TacticalServer(new_database(Service.TACTICAL), cache, tmp_path_factory.mktemp("tactical"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def tactical_server_class() -> type[TacticalServer]:
    """For tests that bring servers of their own to break."""
    return TacticalServer
