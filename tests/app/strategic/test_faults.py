"""Whatever breaks under load: no acknowledged sample is lost, none is stored twice, and the service heals by itself.

Clients send samples with an Idempotency-Key each and repeat until they are acknowledged, as real ones would. Afterwards
every sample is counted in PostgreSQL, in all four tables, and every key is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import psycopg
import pytest

from app.contract import Service
from app.service.migrations import migrate
from ops.local.cache import EmbeddedCache
from ops.local.postgres import EmbeddedPostgres, replace_database
from tests.app.strategic.conftest import PROCESS, StrategicServer, as_application
from tests.app.strategic.fault_proxy import FaultProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPETITIONS = 4
CLIENTS = 8
LOAD_SECONDS = 1.0
BODY = json.dumps({"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": [[0.5] * 13] * 48}}).encode()


@dataclass
class Load:
    """Clients that send until told to stop, and remember what was acknowledged."""

    server: StrategicServer
    name: str
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(180)
        assert not self._thread.is_alive(), f"clients were not answered; statuses so far {self.statuses}"

    async def _run(self) -> None:
        numbers = itertools.count()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.server.port}", headers=self.server.headers(), timeout=20
        ) as client:
            await asyncio.gather(*[self._send(client, numbers) for _ in range(CLIENTS)])

    async def _send(self, client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        while not self._stop.is_set():
            key = f"{self.name}-{next(numbers)}"
            self.acknowledged[key] = await self.send_until_acknowledged(client, key)

    async def send_until_acknowledged(self, client: httpx.AsyncClient, key: str) -> bytes:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        while True:
            try:
                answer = await client.post(PROCESS, content=BODY, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 200:
                return answer.content
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
            await asyncio.sleep(0.1)


@dataclass
class System:
    """The service, its cache, and its database behind a proxy that can cut the line."""

    postgres: EmbeddedPostgres
    cache: EmbeddedCache
    proxy: FaultProxy
    server: StrategicServer

    @property
    def admin_url(self) -> str:
        return replace_database(self.postgres.url, "strategic_db")


@contextlib.contextmanager
def running_system(directory: Path, data: Path) -> Iterator[System]:
    postgres = EmbeddedPostgres(
        data / "postgres", parameters={"shared_buffers": "32MB", "max_wal_size": "48MB", "min_wal_size": "32MB"}
    )
    cache = EmbeddedCache(directory / "cache")
    with contextlib.ExitStack() as cleanup:
        postgres.start()
        cleanup.callback(postgres.destroy)
        cache.start()
        cleanup.callback(cache.stop)
        admin_url = replace_database(postgres.url, "strategic_db")
        migrate(admin_url, Service.STRATEGIC)
        proxy = FaultProxy(postgres.port)
        cleanup.callback(proxy.close)
        url = as_application(admin_url).replace(f":{postgres.port}/", f":{proxy.port}/")
        server = StrategicServer(url, cache.url, directory)
        server.start()
        cleanup.callback(server.kill)
        server.wait_until_ready()
        yield System(postgres, cache, proxy, server)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("faults")
    with running_system(directory, directory) as running:
        yield running


def assert_each_sample_is_stored_once(system: System, load: Load) -> None:
    with psycopg.connect(system.admin_url) as connection:
        ids = {json.loads(answer)["id"] for answer in load.acknowledged.values()}
        assert len(ids) == len(load.acknowledged)
        for table in ("samples", "uncertainty_data", "regime_data", "vector_patterns"):
            statement = f"SELECT count(*), count(DISTINCT id) FROM {table} WHERE id = ANY(%s)"  # noqa: S608
            assert connection.execute(statement, [list(ids)]).fetchone() == (len(ids), len(ids)), table
        keys = connection.execute(
            "SELECT key, first_id FROM idempotency_keys WHERE key LIKE %s", [f"{load.name}-%"]
        ).fetchall()
        stored = {key: first_id for key, first_id in keys}  # noqa: C416
        assert stored == {key: json.loads(answer)["id"] for key, answer in load.acknowledged.items()}
        orphans = connection.execute(
            "SELECT count(*) FROM samples s WHERE NOT EXISTS (SELECT FROM idempotency_keys k "
            "WHERE s.id >= k.first_id AND s.id < k.first_id + k.samples)"
        ).fetchone()
        assert orphans == (0,), "samples that no acknowledged request stands for"
    some = dict(list(load.acknowledged.items())[:: max(1, len(load.acknowledged) // 20)])
    with system.server.client() as client:
        for key, answer in some.items():
            again = client.post(
                PROCESS, content=BODY, headers={"Content-Type": "application/json", "Idempotency-Key": key}
            )
            assert again.raise_for_status().content == answer


def survive(system: System, name: str, fault: Callable[[], None], heal: Callable[[], None]) -> Load:
    with Load(system.server, name) as load:
        time.sleep(LOAD_SECONDS)
        before = len(load.acknowledged)
        assert before > 0, "no load"
        fault()
        time.sleep(LOAD_SECONDS)
        heal()
        system.server.wait_until_ready()
        time.sleep(LOAD_SECONDS)
    assert len(load.acknowledged) > before, "the service did not heal"
    assert_each_sample_is_stored_once(system, load)
    return load


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_kill_9_of_the_service(system: System, repetition: int) -> None:
    survive(system, f"service-{repetition}", system.server.kill, system.server.start)


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_kill_9_of_postgresql(system: System, repetition: int) -> None:
    load = survive(system, f"postgres-{repetition}", system.postgres.kill, system.postgres.start)
    assert load.statuses.get(503, 0) > 0


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_the_cache_stops(system: System, repetition: int) -> None:
    load = survive(system, f"cache-{repetition}", system.cache.kill, system.cache.start)
    assert load.statuses.get(503, 0) > 0


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("way", ["cut", "silence"])
def test_the_network_to_the_database_breaks(system: System, way: str, repetition: int) -> None:
    fault = system.proxy.cut if way == "cut" else system.proxy.silence
    survive(system, f"{way}-{repetition}", fault, system.proxy.restore)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m,mode=0777", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def test_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    filler = small_disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"\0" * (1 << 20))
                file.flush()

    with running_system(tmp_path, small_disk) as small:

        def free() -> None:
            filler.unlink()
            if not small.postgres.running:
                small.postgres.start()

        for repetition in range(REPETITIONS):
            survive(small, f"disk-{repetition}", fill, free)
