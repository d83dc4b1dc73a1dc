"""The strategic service under load: authenticated, two workers, every answer durable; wrk on the same machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import psycopg

from app.contract import STRATEGIC, Env, Service
from app.strategic.codec import RECORD
from benchmarks import processor, wrk
from benchmarks.figures import Figure, summarise
from benchmarks.store import PARAMETERS
from ops.local.stack import RunningStack, StackOptions, running_stack

RUNS: Final = 5
SECONDS: Final = 4
LIST_SIZE: Final = 64
PAUSE_MILLISECONDS: Final = 8
"""On average, between an answer and the next request of 64 clients: somewhat more than 5,000 requests a second."""
PATH: Final = f"{STRATEGIC.api_prefix}/process"


def measure() -> list[Figure]:
    """Rates and latencies of the three forms of a request, and the time until the stack is ready."""
    with _stack() as (stack, service, directory):
        ready = Figure(
            name="`make serve` from an empty directory to /ready",
            value=stack.seconds_to_ready,
            unit="s",
            bar=10,
            aim=5,
            note="both services, PostgreSQL, cache, certificates and migrations",
        )
        single = _single(stack, service, directory)
        lists = _samples(stack, directory, "application/json", "JSON lists of 64, durable", bar=25_000, aim=50_000)
        binary = _samples(stack, directory, "application/octet-stream", "binary, 64 a request, durable", 35_000, 80_000)
        return [ready, *single, *lists, *binary]


@contextmanager
def _stack() -> Iterator[tuple[RunningStack, int, Path]]:
    """The system, the process of the strategic service, and a folder."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-serve-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        options = StackOptions(
            directory=directory / "stack",
            environment={Env.RATE_LIMIT_PER_MINUTE: "1000000000", Env.LOG_LEVEL: "WARNING"},
            services=(Service.STRATEGIC, Service.TACTICAL),
            tls=False,
            database_parameters=PARAMETERS,
        )
        with running_stack(options) as (stack, children):
            service = next(child.pid for child in children if child.pid and child.contract.service is Service.STRATEGIC)
            yield stack, service, directory


def _prepare_database(url: str) -> None:
    """Empty the tables, and recycle the segments of the log as in a server that has run for some time.

    Until then it fills a new segment of 16 MiB with zeros twice a second, and every commit waits for that (p99 over 64
    connections 45 to 50 ms instead of 11 to 13). And the rows of one figure would burden the next: they are still being
    written to the tables' files, and vacuumed.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE samples, uncertainty_data, regime_data, vector_patterns")
        for _ in range(2):
            connection.execute(
                "SELECT pg_logical_emit_message(false, 'bench', repeat('x', 1000000)) FROM generate_series(1, 2000)"
            )
            connection.execute("CHECKPOINT")


def _single(stack: RunningStack, service: int, directory: Path) -> list[Figure]:
    request = _request(stack, "application/json", json.dumps(_market_data(0)).encode())
    figures = []
    for connections, bar, aim, p99_bar in ((32, None, None, None), (64, 10_000, 12_604, 15.0), (128, None, None, None)):
        loads = _loads(stack, request, directory, connections)
        figures += _rate_and_p99(f"one matrix a request, {connections} connections", loads, 1, bar, aim, p99_bar)
    figures += _processor_time(stack, service, directory, request)
    paced = _loads(stack, request, directory, 64, pause=PAUSE_MILLISECONDS)
    name = f"one matrix a request, 64 clients that pause {PAUSE_MILLISECONDS} ms on average"
    return figures + _rate_and_p99(name, paced, 1, 5_000, None, 10.0)


def _processor_time(stack: RunningStack, service: int, directory: Path, request: wrk.Request) -> list[Figure]:
    """Where the time of one request goes, over 64 connections."""
    _prepare_database(stack.databases[Service.STRATEGIC])
    parts = {
        "service": processor.with_descendants(service),
        "PostgreSQL": processor.of_database(stack.databases[Service.STRATEGIC]),
    }
    used: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(RUNS):
        before = {name: processor.seconds(numbers) for name, numbers in parts.items()}
        load = wrk.send(request, directory, connections=64, seconds=SECONDS)
        for name, numbers in parts.items():
            used[name].append((processor.seconds(numbers) - before[name]) / (load.rate * SECONDS) * 1e6)
    note = "user and system, all processes; 64 connections"
    return [
        Figure(name=f"processor time of one request: {name}", value=value, unit="us", spread=spread, note=note)
        for name, (value, spread) in ((name, summarise(times)) for name, times in used.items())
    ]


def _samples(
    stack: RunningStack, directory: Path, content_type: str, name: str, bar: float, aim: float
) -> list[Figure]:
    if content_type == "application/json":
        body = json.dumps([_market_data(row) for row in range(LIST_SIZE)]).encode()
    else:
        records = np.empty(LIST_SIZE, RECORD)
        records["timestamp"] = 1_767_623_400_000_000
        records["matrix"] = _matrices()
        body = records.tobytes()
    loads = _loads(stack, _request(stack, content_type, body), directory, 8)
    return _rate_and_p99(f"{name}, 8 connections", loads, LIST_SIZE, bar, aim, None)


def _loads(
    stack: RunningStack, request: wrk.Request, directory: Path, connections: int, *, pause: int = 0
) -> list[wrk.Load]:
    _prepare_database(stack.databases[Service.STRATEGIC])
    return [wrk.send(request, directory, connections=connections, seconds=SECONDS, pause=pause) for _ in range(RUNS)]


def _request(stack: RunningStack, content_type: str, body: bytes) -> wrk.Request:
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {stack.token}"}
    return wrk.Request(f"{stack.strategic}{PATH}", body, headers)


def _rate_and_p99(
    name: str, loads: list[wrk.Load], samples: int, bar: float | None, aim: float | None, p99_bar: float | None
) -> list[Figure]:
    rate, rate_spread = summarise([load.rate * samples for load in loads])
    p99, p99_spread = summarise([load.p99 for load in loads])
    failed = sum(load.failed for load in loads)
    note = f"2 workers, authenticated; {failed} failed"
    return [
        Figure(
            name=name, value=rate, unit="samples/s", spread=rate_spread, bar=bar, aim=aim, better="higher", note=note
        ),
        Figure(name=f"{name}: p99", value=p99, unit="ms", spread=p99_spread, bar=p99_bar, note=note),
    ]


def _matrices() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(3).standard_normal((LIST_SIZE, 48, 13)).astype(np.float32)


def _market_data(row: int) -> dict[str, object]:
    data = np.round(_matrices()[row].astype(np.float64), 6).tolist()
    return {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": data}}
