"""What the tactical service costs over HTTP: with authentication, a real PostgreSQL, and commits that are flushed.

PostgreSQL, the cache, the service and the load generator share this machine. Latencies of ``act`` count from the moment
at which a request was due, so that a stall is charged to every request behind it (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg

from app.contract import Service
from app.service.migrations import migrate
from app.service.tokens import mint_token
from benchmarks.figures import Figure, summarise
from ops.local.cache import cache_url
from ops.local.postgres import postgres_url, replace_database
from ops.local.process import free_port

SECRET = secrets.token_hex(32)
WINDOW = np.random.default_rng(1).uniform(-0.5, 0.5, (30, 7)).round(3).tolist()
TRAINING = {"training_data": {"episodes": 10, "data": WINDOW}}
RATE = 200.0
SECONDS = 10.0
CONNECTIONS = 8
FRESH_PROCESSES = 3
WARM_RUNS = 15


@dataclass
class Served:
    """A running service."""

    port: int
    pid: int
    ready_seconds: float
    token: str

    def client(self) -> httpx.Client:
        """Keeps one connection alive."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api/tactical/", headers=headers, timeout=60.0)

    def train(self, client: httpx.Client) -> float:
        """Seconds of one training of 10 episodes x 30 steps, with its commit."""
        start = time.perf_counter()
        client.post("train", json=TRAINING).raise_for_status()
        return time.perf_counter() - start

    @property
    def peak_mebibytes(self) -> float:
        """Most memory that the process ever held."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure() -> list[Figure]:
    """Starts the servers, measures for about a minute, stops them."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        directory.chmod(0o755)
        administrator = stack.enter_context(postgres_url(directory / "postgres"))
        cache = stack.enter_context(cache_url(directory / "cache"))
        name = f"bench_tactical_{os.getpid()}"
        with psycopg.connect(administrator, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        stack.callback(_drop, administrator, name)
        database = replace_database(administrator, name)
        migrate(database, Service.TACTICAL)
        return list(_figures(database, cache, directory))


def _figures(database: str, cache: str, directory: Path) -> Iterator[Figure]:
    first, ready = [], []
    for _ in range(FRESH_PROCESSES):
        with _served(database, cache, directory) as service, service.client() as client:
            first.append(service.train(client))
            ready.append(service.ready_seconds)
    yield _figure("tactical service, start to /ready", ready, "s")
    yield _figure("first training over HTTP after /ready", first, "ms", bar=1000.0, aim=300.0, note="fresh process")
    with _served(database, cache, directory) as service, service.client() as client:
        for _ in range(3):
            service.train(client)
        warm = [service.train(client) for _ in range(WARM_RUNS)]
        note = "10 x 30 steps, 3 agents; file and rows committed"
        yield _figure("training over HTTP, warm, committed", warm, "ms", bar=500.0, aim=150.0, note=note)
        _activate(client)
        quiet = [asyncio.run(_act_at_rate(service)) for _ in range(3)]
        yield _figure("act p50 at 200/s", [p50 for p50, _ in quiet], "ms", note="committed; from when it was due")
        yield _figure(
            "act p99 at 200/s", [p99 for _, p99 in quiet], "ms", bar=5.0, note="committed; from when it was due"
        )
        job = client.post("jobs", json={"simulation": {"bars": 2000}, "episodes": 500_000}).json()["id"]
        time.sleep(2.0)
        busy = [asyncio.run(_act_at_rate(service)) for _ in range(3)]
        yield _figure("act p99 at 200/s while a job trains", [p99 for _, p99 in busy], "ms", note="one device, one CPU")
        client.post(f"jobs/{job}/cancel").raise_for_status()
        peak = service.peak_mebibytes
    yield Figure(name="tactical service, peak memory", value=peak, unit="MiB", bar=800.0, note="after all of the above")


def _figure(
    name: str, seconds: list[float], unit: str, *, bar: float | None = None, aim: float | None = None, note: str = ""
) -> Figure:
    value, spread = summarise([run * (1000.0 if unit == "ms" else 1.0) for run in seconds])
    return Figure(name=name, value=value, unit=unit, spread=spread, bar=bar, aim=aim, note=note)


def _activate(client: httpx.Client) -> None:
    version = client.get("models", params={"limit": 1}).json()["models"][0]["version"]
    client.post(f"models/{version}/activate").raise_for_status()


async def _act_at_rate(service: Served) -> tuple[float, float]:
    """Median and 99th percentile of the seconds from when a request was due to its whole answer."""
    body = json.dumps({"market_data": {"timestamp": "2026-11-23T10:00:00Z", "data": WINDOW}}).encode()
    head = (
        f"POST /api/tactical/act HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {service.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    latencies: list[float] = []
    start = time.perf_counter() + 0.1

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        for index in range(number, int(RATE * SECONDS), CONNECTIONS):
            due = start + index / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(request)
            await _read_answer(reader)
            latencies.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(CONNECTIONS)))
    return statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"act answered {head.splitlines()[0].decode()}")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)


@contextmanager
def _served(database: str, cache: str, directory: Path) -> Iterator[Served]:
    port = free_port()
    settings: dict[str, Any] = {
        "DATABASE_URL": database,
        "REDIS_URL": cache,
        "JWT_SECRET": SECRET,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DRAIN_SECONDS": "0",
        "RATE_LIMIT_PER_MINUTE": "10000000",
        "MODEL_STORE_URL": (directory / "models").as_uri(),
    }
    with (directory / "tactical.log").open("ab") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "app.tactical.main"], env={**os.environ, **settings}, stdout=log, stderr=log
        )
    try:
        _await_ready(process, port)
        ready = time.perf_counter() - start
        yield Served(port, process.pid, ready, mint_token(SECRET, subject="bench", roles=["admin"]))
    finally:
        process.terminate()
        process.wait(60)


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise RuntimeError("the tactical service did not start")


def _drop(administrator: str, name: str) -> None:
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


if __name__ == "__main__":
    for figure in measure():
        print(figure.model_dump_json())
