"""A measured figure beside its bar, and how several runs become one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Figure(BaseModel):
    """One row of the bench table.

    ``value`` is the median of several runs and ``spread`` the distance between their quartiles, both in ``unit``.
    ``bar`` is what must hold and ``aim`` what we are after; a figure of a peer has neither.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    unit: str
    spread: float = 0.0
    bar: float | None = None
    aim: float | None = None
    better: Literal["lower", "higher"] = "lower"
    note: str = ""

    @property
    def meets_bar(self) -> bool | None:
        """Whether the value holds the bar; None where there is none."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


def summarise(runs: Sequence[float]) -> tuple[float, float]:
    """Median and interquartile distance of ``runs`` (at least one)."""
    if len(runs) < 2:
        return runs[0], 0.0
    quartiles = statistics.quantiles(runs, n=4, method="inclusive")
    return statistics.median(runs), quartiles[2] - quartiles[0]


def time_runs(work: Callable[[], object], *, runs: int, warmup: int = 1) -> list[float]:
    """Seconds of each of ``runs`` calls of ``work`` after ``warmup`` calls that do not count."""
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds
