"""Does the system hold what was promised? The user's validation, with definitions that say what they measure.

The user's document sends 100 requests over 10 threads and trains 5 times. It divides the number of requests by the
*sum* of their latencies and calls that throughput; with 10 threads that sum is ten times the time that passed. Both
figures are reported, under names that say what they are; the verdict uses the one by wall time.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.contract import (
    MATRIX_BARS,
    MATRIX_FEATURES,
    STRATEGIC,
    STRATEGIC_TARGET_SAMPLES_PER_SECOND,
    TACTICAL,
    WINDOW_BARS,
    WINDOW_FEATURES,
)
from ops.errors import OpsError
from ops.target import Target

PROCESS_PATH: Final = f"{STRATEGIC.api_prefix}/process"
TRAIN_PATH: Final = f"{TACTICAL.api_prefix}/train"
_RECORD: Final = np.dtype([("timestamp", "<i8"), ("matrix", "<f4", (MATRIX_BARS, MATRIX_FEATURES))])
_BAR_MICROSECONDS: Final = 30 * 60 * 1_000_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Load:
    """What is sent. The defaults are the user's document's, with as many matrices a request as a desk sends at once."""

    requests: int = 100
    threads: int = 10
    matrices_per_request: int = 64
    trainings: int = 5
    episodes: int = 10
    sustained_seconds: float = 10.0
    seed: int = 0


class Goal(BaseModel):
    """A promise, what was measured, and whether it holds."""

    model_config = ConfigDict(frozen=True)

    name: str
    measured: float
    limit: float
    unit: str
    better: Literal["lower", "higher"]

    @property
    def met(self) -> bool:
        """Whether the promise holds."""
        return self.measured <= self.limit if self.better == "lower" else self.measured >= self.limit


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


class ValidationReport(BaseModel):
    """Everything that one validation measured."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    burst: StrategicMeasurement
    sustained: StrategicMeasurement | None
    training_seconds: tuple[float, ...]
    goals: tuple[Goal, ...]

    @property
    def passed(self) -> bool:
        """Whether every promise holds."""
        return all(goal.met for goal in self.goals)


def validate(target: Target, load: Load, progress: Progress = lambda _: None) -> ValidationReport:
    """Send ``load`` to ``target`` and hold the measurements against the promises.

    Raises:
        OpsError: when not one request succeeds: there is nothing to judge.
    """
    body = strategic_body(load.matrices_per_request, load.seed)
    progress(f"strategic: warming up {load.threads} connections")
    _send_strategic(target, body, load, requests=load.threads, seconds=None)
    progress(f"strategic: {load.requests} requests over {load.threads} threads")
    burst = _send_strategic(target, body, load, requests=load.requests, seconds=None)
    sustained = None
    if load.sustained_seconds > 0:
        progress(f"strategic: sustained load for {load.sustained_seconds:g} s")
        sustained = _send_strategic(target, body, load, requests=None, seconds=load.sustained_seconds)
    trainings = _train(target, load, progress)
    return ValidationReport(
        at=datetime.now(UTC),
        burst=burst,
        sustained=sustained,
        training_seconds=tuple(trainings),
        goals=_goals(burst, sustained, trainings),
    )


def strategic_body(matrices: int, seed: int) -> bytes:
    """Binary request of (``matrices``, 48, 13) seeded noise: it asks for speed, not for wisdom."""
    generator = np.random.default_rng(seed)
    records = np.zeros(matrices, _RECORD)
    records["timestamp"] = time.time_ns() // 1000 - _BAR_MICROSECONDS * np.arange(matrices)[::-1]
    records["matrix"] = np.clip(generator.normal(0.0, 0.5, (matrices, MATRIX_BARS, MATRIX_FEATURES)), -1.0, 1.0)
    return records.tobytes()


def training_window(seed: int) -> list[list[float]]:
    """A (30, 7) window of seeded noise."""
    window: NDArray[np.float64] = np.random.default_rng(seed).normal(0.0, 0.3, (WINDOW_BARS, WINDOW_FEATURES))
    return [[round(float(value), 6) for value in row] for row in np.clip(window, -1.0, 1.0)]


@dataclass
class _Tally:
    latencies: list[float]
    failures: list[str]


def _send_strategic(
    target: Target, body: bytes, load: Load, *, requests: int | None, seconds: float | None
) -> StrategicMeasurement:
    """Requests over threads, each with its own connection, until ``requests`` are sent or ``seconds`` have passed."""
    remaining = iter(range(requests)) if requests is not None else None
    deadline = time.perf_counter() + seconds if seconds is not None else math.inf
    lock = threading.Lock()
    barrier = threading.Barrier(load.threads + 1)

    def take() -> bool:
        with lock:
            more = remaining is None or next(remaining, None) is not None
        return more and time.perf_counter() < deadline

    def work() -> _Tally:
        tally = _Tally([], [])
        with target.client(STRATEGIC) as client:
            barrier.wait()
            while take():
                start = time.perf_counter()
                reason = _post_matrices(client, body)
                if reason is None:
                    tally.latencies.append(time.perf_counter() - start)
                else:
                    tally.failures.append(reason)
        return tally

    with ThreadPoolExecutor(load.threads) as pool:
        futures = [pool.submit(work) for _ in range(load.threads)]
        barrier.wait()
        start = time.perf_counter()
        tallies = [future.result() for future in futures]
        wall = time.perf_counter() - start
    return _measure(tallies, load, wall)


def _post_matrices(client: httpx.Client, body: bytes) -> str | None:
    """None when the request succeeded, else why it did not."""
    try:
        answer = client.post(PROCESS_PATH, content=body, headers={"Content-Type": "application/octet-stream"})
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    return None if answer.status_code == httpx.codes.OK else f"{answer.status_code}: {answer.text[:200]}"


def _measure(tallies: Sequence[_Tally], load: Load, wall: float) -> StrategicMeasurement:
    latencies = sorted(latency for tally in tallies for latency in tally.latencies)
    failures = [reason for tally in tallies for reason in tally.failures]
    if not latencies:
        raise OpsError(f"not one strategic request succeeded: {failures[0] if failures else 'none was sent'}")
    samples = len(latencies) * load.matrices_per_request
    return StrategicMeasurement(
        requests=len(latencies) + len(failures),
        failures=len(failures),
        failure_reasons=tuple(sorted(set(failures)))[:5],
        matrices_per_request=load.matrices_per_request,
        threads=load.threads,
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


def _train(target: Target, load: Load, progress: Progress) -> list[float]:
    seconds = []
    with target.client(TACTICAL, timeout=60.0) as client:
        for index in range(load.trainings):
            progress(f"tactical: training {index + 1} of {load.trainings}")
            payload = {"training_data": {"episodes": load.episodes, "data": training_window(load.seed + index)}}
            start = time.perf_counter()
            try:
                answer = client.post(TRAIN_PATH, json=payload)
            except httpx.HTTPError as error:
                raise OpsError(f"tactical training {index + 1} got no answer: {error}") from None
            if answer.status_code != httpx.codes.OK:
                raise OpsError(f"tactical training {index + 1} failed with {answer.status_code}: {answer.text[:200]}")
            seconds.append(round(time.perf_counter() - start, 4))
    return seconds


def _goals(
    burst: StrategicMeasurement, sustained: StrategicMeasurement | None, trainings: Sequence[float]
) -> tuple[Goal, ...]:
    throughput = sustained or burst
    goals = [
        Goal(
            name="throughput by wall time",
            measured=throughput.samples_per_second_by_wall_time,
            limit=STRATEGIC_TARGET_SAMPLES_PER_SECOND,
            unit="samples/s",
            better="higher",
        ),
        Goal(name="mean latency", measured=burst.latencies_ms.mean, limit=10.0, unit="ms", better="lower"),
        Goal(
            name="success",
            measured=100 * (1 - burst.failures / burst.requests),
            limit=99.0,
            unit="%",
            better="higher",
        ),
    ]
    if trainings:
        slowest = max(trainings)
        goals.append(Goal(name="slowest training", measured=slowest, limit=1.0, unit="s", better="lower"))
    return tuple(goals)


def render_markdown(report: ValidationReport) -> str:
    """The report for a person, or a pull request."""
    lines = [
        f"# Performance validation, {report.at:%Y-%m-%d %H:%M} UTC: {'passed' if report.passed else 'FAILED'}",
        "",
        "| promise | measured | limit | |",
        "|---|---|---|---|",
    ]
    for goal in report.goals:
        sign = "<=" if goal.better == "lower" else ">="
        verdict = "met" if goal.met else "**missed**"
        lines.append(
            f"| {goal.name} | {goal.measured:,.2f} {goal.unit} | {sign} {goal.limit:,g} {goal.unit} | {verdict} |"
        )
    lines += [
        "",
        "| strategic load | requests | failures | mean ms | p99 ms | samples/s by wall time | by sum of latencies |",
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, measurement in (("burst", report.burst), ("sustained", report.sustained)):
        if measurement is not None:
            lines.append(
                f"| {name}: {measurement.threads} threads, {measurement.matrices_per_request} matrices a request "
                f"| {measurement.requests} | {measurement.failures} | {measurement.latencies_ms.mean:g} "
                f"| {measurement.latencies_ms.p99:g} | {measurement.samples_per_second_by_wall_time:,.0f} "
                f"| {measurement.samples_per_second_by_sum_of_latencies:,.0f} |"
            )
    trainings = ", ".join(f"{seconds:.3f}" for seconds in report.training_seconds)
    lines += ["", f"Trainings, seconds each over HTTP with their commit: {trainings or 'none'}", ""]
    return "\n".join(lines)
