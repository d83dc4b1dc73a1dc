"""Does the system hold what was promised? The user's validation, with definitions that say what they measure.

The user's document sends 100 requests over 10 threads and trains 5 times. It divides the number of requests by the
*sum* of their latencies and calls that throughput; with 10 threads that sum is ten times the time that passed. Both
figures are reported, under names that say what they are; the verdict uses the one by wall time.

The burst is the document's, a matrix a request, and is judged by its latency. Throughput is judged by the sustained
load, whose requests carry many matrices: a client may send a thousand requests a minute and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.contract import STRATEGIC_TARGET_SAMPLES_PER_SECOND, TACTICAL, WINDOW_BARS, WINDOW_FEATURES
from ops.errors import OpsError
from ops.health import HealthReport, check_health
from ops.strategic_load import StrategicMeasurement, binary_body, send, single_body
from ops.target import Target

TRAIN_PATH: Final = f"{TACTICAL.api_prefix}/train"
MOST_REQUESTS: Final = 800
"""Of the sustained load: the client's minute has to last for the burst and the trainings too."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Load:
    """What is sent. Burst and trainings are the user's document's."""

    requests: int = 100
    threads: int = 10
    matrices_per_request: int = 1024
    """In the sustained load; the burst sends one."""
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


class ValidationReport(BaseModel):
    """Everything that one validation measured."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    health: HealthReport
    burst: StrategicMeasurement
    sustained: StrategicMeasurement | None
    training_seconds: tuple[float, ...]
    goals: tuple[Goal, ...]

    @property
    def passed(self) -> bool:
        """Whether every part is well and every promise holds."""
        return self.health.healthy and all(goal.met for goal in self.goals)


def validate(target: Target, load: Load, progress: Progress = lambda _: None) -> ValidationReport:
    """Send ``load`` to ``target`` and hold the measurements against the promises.

    Raises:
        OpsError: when not one request succeeds: there is nothing to judge.
    """
    progress("health: asking every part")
    health = check_health(target)
    body = single_body(load.seed)
    progress(f"strategic: warming up {load.threads} connections")
    send(target, body, threads=load.threads, requests=load.threads)
    progress(f"strategic: {load.requests} requests over {load.threads} threads")
    burst = send(target, body, threads=load.threads, requests=load.requests)
    sustained = None
    if load.sustained_seconds > 0:
        progress(f"strategic: sustained load for {load.sustained_seconds:g} s")
        many = binary_body(load.matrices_per_request, load.seed)
        sustained = send(target, many, threads=load.threads, requests=MOST_REQUESTS, seconds=load.sustained_seconds)
    trainings = _train(target, load, progress)
    return ValidationReport(
        at=datetime.now(UTC),
        health=health,
        burst=burst,
        sustained=sustained,
        training_seconds=tuple(trainings),
        goals=_goals(burst, sustained, trainings),
    )


def training_window(seed: int) -> list[list[float]]:
    """A (30, 7) window of seeded noise."""
    window: NDArray[np.float64] = np.random.default_rng(seed).normal(0.0, 0.3, (WINDOW_BARS, WINDOW_FEATURES))
    return [[round(float(value), 6) for value in row] for row in np.clip(window, -1.0, 1.0)]


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
    loads = [burst] if sustained is None else [burst, sustained]
    requests, failures = sum(load.requests for load in loads), sum(load.failures for load in loads)
    goals = [
        Goal(
            name="sustained throughput by wall time",
            measured=throughput.samples_per_second_by_wall_time,
            limit=STRATEGIC_TARGET_SAMPLES_PER_SECOND,
            unit="samples/s",
            better="higher",
        ),
        Goal(name="mean latency of the burst", measured=burst.latencies_ms.mean, limit=10.0, unit="ms", better="lower"),
        Goal(
            name="success of all requests",
            measured=100 * (1 - failures / requests),
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
    failed = [check for check in report.health.checks if check.status != "ok"]
    lines += ["", f"Health: {len(report.health.checks) - len(failed)} of {len(report.health.checks)} checks are well."]
    lines += [f"- **{check.name}**: {check.detail}" for check in failed]
    lines += [
        "",
        "| strategic load | requests | failures | mean ms | p99 ms | samples/s by wall time | by sum of latencies |",
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, measurement in (("burst", report.burst), ("sustained", report.sustained)):
        if measurement is not None:
            lines.append(
                f"| {name}: {measurement.threads} threads, matrices a request: {measurement.matrices_per_request} "
                f"| {measurement.requests} | {measurement.failures} | {measurement.latencies_ms.mean:g} "
                f"| {measurement.latencies_ms.p99:g} | {measurement.samples_per_second_by_wall_time:,.0f} "
                f"| {measurement.samples_per_second_by_sum_of_latencies:,.0f} |"
            )
    for name, measurement in (("burst", report.burst), ("sustained", report.sustained)):
        if measurement is not None and measurement.failures:
            lines += ["", f"Failures of the {name}:", *(f"- {reason}" for reason in measurement.failure_reasons)]
    trainings = ", ".join(f"{seconds:.3f}" for seconds in report.training_seconds)
    lines += ["", f"Trainings, seconds each over HTTP with their commit: {trainings or 'none'}", ""]
    return "\n".join(lines)
