"""Strategic requests over threads, and what came of them.

The client is the standard library's: threads share one interpreter, and the more of it a request takes, the more the
client measures itself.
"""

from __future__ import annotations

import http.client
import json
import math
import ssl
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.contract import MATRIX_BARS, MATRIX_FEATURES, STRATEGIC
from ops.errors import OpsError
from ops.target import Target

PROCESS_PATH: Final = f"{STRATEGIC.api_prefix}/process"
_RECORD: Final = np.dtype([("timestamp", "<i8"), ("matrix", "<f4", (MATRIX_BARS, MATRIX_FEATURES))])
_BAR_MICROSECONDS: Final = 30 * 60 * 1_000_000
_TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class Body:
    """What each request carries."""

    matrices: int
    content: bytes
    content_type: str


class Latencies(BaseModel):
    """Latencies of successful requests in milliseconds."""

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float
    p99: float
    largest: float


class StrategicMeasurement(BaseModel):
    """What one burst, or one sustained load, of strategic requests gave."""

    model_config = ConfigDict(frozen=True)

    requests: int
    failures: int
    failure_reasons: tuple[str, ...]
    matrices_per_request: int
    threads: int
    wall_seconds: float
    latencies_ms: Latencies
    samples_per_second_by_wall_time: float
    samples_per_second_by_sum_of_latencies: float
    """The document's definition: successful samples over the sum of latencies."""


def single_body(seed: int) -> Body:
    """The document's request: one matrix of seeded noise as JSON."""
    document = {"market_data": {"timestamp": time.time_ns() // 1000, "data": _noise(1, seed)[0].round(6).tolist()}}
    return Body(1, json.dumps(document).encode(), "application/json")


def binary_body(matrices: int, seed: int) -> Body:
    """Records of ``matrices`` matrices of seeded noise: they ask for speed, not for wisdom."""
    records = np.zeros(matrices, _RECORD)
    records["timestamp"] = time.time_ns() // 1000 - _BAR_MICROSECONDS * np.arange(matrices)[::-1]
    records["matrix"] = _noise(matrices, seed)
    return Body(matrices, records.tobytes(), "application/octet-stream")


def _noise(matrices: int, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    return np.clip(generator.normal(0.0, 0.5, (matrices, MATRIX_BARS, MATRIX_FEATURES)), -1.0, 1.0)


def send(
    target: Target, body: Body, *, threads: int, requests: int, seconds: float | None = None
) -> StrategicMeasurement:
    """Send ``requests`` over ``threads`` with a connection each, or as many as fit into ``seconds``.

    Raises:
        OpsError: when not one request succeeds: there is nothing to judge.
    """
    remaining = iter(range(requests))
    lock = threading.Lock()
    barrier = threading.Barrier(threads + 1)
    deadline = math.inf

    def take() -> bool:
        with lock:
            return time.perf_counter() < deadline and next(remaining, None) is not None

    def work() -> _Tally:
        tally = _Tally([], [])
        with _Connection(target, body) as connection:
            barrier.wait()
            while take():
                start = time.perf_counter()
                reason = connection.post()
                if reason is None:
                    tally.latencies.append(time.perf_counter() - start)
                else:
                    tally.failures.append(reason)
        return tally

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work) for _ in range(threads)]
        start = time.perf_counter()
        deadline = start + seconds if seconds is not None else math.inf
        barrier.wait()
        start = time.perf_counter()
        tallies = [future.result() for future in futures]
        wall = time.perf_counter() - start
    return _measure(tallies, body.matrices, threads, wall)


@dataclass
class _Tally:
    latencies: list[float]
    failures: list[str]


class _Connection:
    """One connection that sends one body again and again; opened before the clock runs."""

    def __init__(self, target: Target, body: Body) -> None:
        address = urlsplit(target.service_urls[STRATEGIC.service])
        self._path = address.path + PROCESS_PATH
        self._body = body.content
        self._headers = {"Content-Type": body.content_type}
        if target.token:
            self._headers["Authorization"] = f"Bearer {target.token}"
        host = address.hostname or ""
        if address.scheme == "https":
            authority = str(target.ca_certificate) if target.ca_certificate else None
            context = ssl.create_default_context(cafile=authority)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, address.port, timeout=_TIMEOUT, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, address.port, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        """Connect, so that no request pays for it; where that fails, the first request says so."""
        try:
            self._connection.connect()
        except OSError:
            self._connection.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self) -> str | None:
        """None when the request succeeded, else why it did not."""
        try:
            self._connection.request("POST", self._path, self._body, self._headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return f"{type(error).__name__}: {error}"
        return None if answer.status == 200 else f"{answer.status}: {content[:200].decode(errors='replace')}"


def _measure(tallies: Sequence[_Tally], matrices: int, threads: int, wall: float) -> StrategicMeasurement:
    latencies = sorted(latency for tally in tallies for latency in tally.latencies)
    failures = [reason for tally in tallies for reason in tally.failures]
    if not latencies:
        raise OpsError(f"not one strategic request succeeded: {failures[0] if failures else 'none was sent'}")
    samples = len(latencies) * matrices
    return StrategicMeasurement(
        requests=len(latencies) + len(failures),
        failures=len(failures),
        failure_reasons=tuple(sorted(set(failures)))[:5],
        matrices_per_request=matrices,
        threads=threads,
        wall_seconds=round(wall, 4),
        latencies_ms=Latencies(
            mean=round(1000 * statistics.fmean(latencies), 3),
            median=round(1000 * statistics.median(latencies), 3),
            p99=round(1000 * latencies[math.ceil(0.99 * len(latencies)) - 1], 3),
            largest=round(1000 * latencies[-1], 3),
        ),
        samples_per_second_by_wall_time=round(samples / wall, 1),
        samples_per_second_by_sum_of_latencies=round(samples / sum(latencies), 1),
    )
