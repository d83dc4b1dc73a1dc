"""How many samples a second become durable, and how fast their patterns are found while that goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import AsyncConnection, sql

from app.contract import Service
from app.service.database import Connection
from app.service.migrations import migrate
from app.strategic import store
from app.strategic.answers import ANSWER_COLUMNS
from app.strategic.engine import Engine
from app.strategic.outcomes import Outcomes
from app.strategic.quality import sample_windows
from app.strategic.settings import StrategicSettings
from app.strategic.store import Batch
from benchmarks.figures import Figure, summarise
from ops.local.postgres import EmbeddedPostgres, replace_database

PARAMETERS: Final = {
    "shared_buffers": "2GB",
    "effective_cache_size": "6GB",
    "maintenance_work_mem": "512MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "work_mem": "32MB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
}
"""The parameters that the estate gives the database."""

ROWS_SECONDS: Final = 4.0
RUNS: Final = 5
PATTERNS: Final = 1_000_000
QUERIES: Final = 300
RECALL_QUERIES: Final = 50
_EMPTY: Final = "TRUNCATE samples, uncertainty_data, regime_data, vector_patterns"

Float32 = NDArray[np.float32]


def measure() -> list[Figure]:
    """Rows a second by batch and connections, and the nearest patterns among a million while rows arrive."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-store-") as directory:
        Path(directory).chmod(0o755)
        server = EmbeddedPostgres(Path(directory) / "postgres", parameters=PARAMETERS)
        server.start()
        try:
            url = replace_database(server.url, "strategic_db")
            migrate(url, Service.STRATEGIC)
            return [*asyncio.run(_rows(url)), *_neighbours(url)]
        finally:
            server.destroy()


async def _rows(url: str) -> list[Figure]:
    figures = []
    for size, connections in ((1, 4), (32, 2), (64, 2), (256, 2)):
        runs = [await _rate(url, size, connections, ROWS_SECONDS / RUNS) for _ in range(RUNS)]
        value, spread = summarise(runs)
        main = size == 256
        figures.append(
            Figure(
                name=f"rows made durable, {size} a commit, {connections} connections",
                value=value,
                unit="rows/s",
                spread=spread,
                bar=35_000 if main else None,
                aim=80_000 if main else None,
                better="higher",
                note="matrix, two small rows and pattern each; fsync and synchronous_commit on",
            )
        )
    return figures


async def _rate(url: str, size: int, connections: int, seconds: float) -> float:
    async with _connections(url, connections) as opened:
        # Every run begins with empty tables and a written log: later ones would measure the page cache instead.
        await opened[0].execute(_EMPTY)
        await opened[0].execute("CHECKPOINT")
        started = time.perf_counter()

        def over() -> bool:
            return time.perf_counter() > started + seconds

        counts = await asyncio.gather(*[_commit_until(connection, size, over) for connection in opened])
        return sum(counts) / (time.perf_counter() - started)


async def _commit_until(connection: Connection, size: int, over: Callable[[], bool]) -> int:
    batch = _batch(size)
    ids = await store.lease_ids(connection)
    count = 0
    while not over():
        if len(ids) < size:
            ids = await store.lease_ids(connection)
        numbered = dataclasses.replace(batch, outcomes=batch.outcomes.numbered(ids.start))
        await store.commit(connection, numbered)
        ids = ids[size:]
        count += size
    return count


def _batch(size: int) -> Batch:
    random = np.random.default_rng(size)
    patterns = np.tanh(random.standard_normal((size, 13), np.float32))
    outcomes = Outcomes.read(0, np.hstack([random.random((size, 30), np.float32), patterns]), "bench")
    timestamps = 1_767_623_400_000_000 + np.arange(size)
    matrices = random.standard_normal((size, 48, 13), np.float32)
    return Batch(outcomes, timestamps, matrices, np.ones(size, np.float32), [1] * size, [None] * size)


@asynccontextmanager
async def _connections(url: str, count: int) -> AsyncIterator[list[Connection]]:
    opened = [await AsyncConnection.connect(url, autocommit=True) for _ in range(count)]
    for connection in opened:
        await store.prepare(connection)
    try:
        yield opened
    finally:
        for connection in opened:
            await connection.close()


def _neighbours(url: str) -> list[Figure]:
    random = np.random.default_rng(0)
    patterns = _patterns_of_markets(PATTERNS)
    probes = StrategicSettings.model_fields["search_probes"].default
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_EMPTY)
        copy = "COPY vector_patterns (id, timestamp, pattern_vector) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(copy) as target:
            for row, pattern in enumerate(patterns.tolist()):
                target.write_row((row, "2026-01-05T14:30:00Z", str(pattern)))
        connection.execute("ANALYZE vector_patterns")
        for (statement,) in connection.execute("SELECT * FROM pattern_index_statements()").fetchall():
            connection.execute(sql.SQL(statement))
    quiet, recall = _search(url, patterns, probes, random)
    busy, rate = asyncio.run(_search_while_ingesting(url, patterns, probes, random))
    name = f"nearest 10 of {PATTERNS:,} patterns"
    note = f"IVFFlat, {probes} probes; patterns that the model gave windows of simulated markets"
    return [
        Figure(name=f"{name}: recall", value=recall, unit="", bar=0.95, better="higher", note=note),
        Figure(name=f"{name}: p99", value=float(np.percentile(quiet, 99)), unit="ms", note="nothing else going on"),
        Figure(
            name=f"{name}: p99 while ingesting",
            value=float(np.percentile(busy, 99)),
            unit="ms",
            bar=10,
            aim=3,
            note=f"median {np.median(busy):.2f} ms; 2 connections commit 64 samples at a time as fast as they can",
        ),
        Figure(
            name="rows made durable meanwhile, 64 a commit, into the index",
            value=rate,
            unit="rows/s",
            better="higher",
            note="while one connection searches without a pause",
        ),
    ]


def _patterns_of_markets(count: int) -> Float32:
    """``count`` patterns that the shipped model gives windows of simulated markets it was not trained on."""
    engine = Engine.load(threads=2)
    parts: list[Float32] = []
    missing, seed = count, 40_100
    while missing > 0:
        markets, ends = sample_windows(seed=seed, count=missing)
        for start in range(0, len(ends), 8192):
            answers = engine.answers(markets.windows(ends[start : start + 8192]))
            parts.append(answers[:, ANSWER_COLUMNS["pattern"]].copy())
        missing, seed = missing - len(ends), seed + 1
    return np.concatenate(parts)


async def _search_while_ingesting(
    url: str, patterns: Float32, probes: int, random: np.random.Generator
) -> tuple[list[float], float]:
    """Milliseconds of each query, and rows a second that were stored meanwhile."""
    async with _connections(url, 2) as opened:
        started = time.perf_counter()
        stop = asyncio.Event()
        ingesting = [asyncio.create_task(_commit_until(one, 64, stop.is_set)) for one in opened]
        try:
            milliseconds, _ = await asyncio.to_thread(_search, url, patterns, probes, random)
        finally:
            stop.set()
            counts = await asyncio.gather(*ingesting)
        return milliseconds, sum(counts) / (time.perf_counter() - started)


def _search(url: str, patterns: Float32, probes: int, random: np.random.Generator) -> tuple[list[float], float]:
    """Milliseconds of each query, and recall@10 against the exact neighbours of the rows loaded first."""
    milliseconds, found, wanted = [], 0, 0
    statement = "SELECT id FROM vector_patterns ORDER BY pattern_vector <-> %(pattern)s::vector LIMIT 10"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET ivfflat.probes = {probes}")
        for number in range(QUERIES):
            pattern = patterns[random.integers(PATTERNS)] + random.normal(0, 0.02, 13).astype(np.float32)
            parameters = {"pattern": str(pattern.tolist())}
            started = time.perf_counter()
            rows = connection.execute(statement, parameters, prepare=True).fetchall()
            milliseconds.append(1000 * (time.perf_counter() - started))
            if number < RECALL_QUERIES:
                distances = ((patterns - pattern) ** 2).sum(axis=1)
                exact = set(np.argpartition(distances, 10)[:10].tolist())
                found += len(exact & {row[0] for row in rows})
                wanted += 10
    return milliseconds[10:], found / wanted
