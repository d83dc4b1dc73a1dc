"""Series that every service exports, and the text that ``/metrics`` answers with.

With several worker processes the values live in files that all share (``PROMETHEUS_MULTIPROC_DIR``, set by
``server.serve``); a scrape of any worker then answers for all of them.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from app import contract


class BatchHistogram(Histogram):
    """A histogram that takes many values at once: a call for each costs a busy service 3 us a request."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count every one of ``values``."""
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        self._sum.inc(sum(values))
        if len(values) == 1:
            self._buckets[bisect_left(self._upper_bounds, values[0])].inc(1)
            return
        counts: dict[int, int] = {}
        for value in values:
            place = bisect_left(self._upper_bounds, value)
            counts[place] = counts.get(place, 0) + 1
        for place, count in counts.items():
            self._buckets[place].inc(count)


MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
LATENCY_BUCKETS: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
)  # fmt: skip

HTTP_REQUESTS: Final = Counter(
    contract.METRIC_HTTP_REQUESTS, "Requests answered, by route and status.", ("method", "route", "status")
)
HTTP_DURATION: Final = BatchHistogram(
    contract.METRIC_HTTP_DURATION,
    "Seconds from the request's first byte to its answer's last, by route.",
    ("method", "route"),
    buckets=LATENCY_BUCKETS,
)
HTTP_IN_FLIGHT: Final = Gauge(
    contract.METRIC_HTTP_IN_FLIGHT, "Requests being answered now.", multiprocess_mode="livesum"
)
DEPENDENCY_UP: Final = Gauge(
    contract.METRIC_DEPENDENCY_UP,
    "1 while the part that the service needs is there, else 0.",
    ("dependency",),
    multiprocess_mode="livemin",
)
RATE_LIMITED: Final = Counter(contract.METRIC_RATE_LIMITED, "Requests refused because the client's minute was used up.")
AUTHENTICATION_FAILURES: Final = Counter(
    contract.METRIC_AUTHENTICATION_FAILURES, "Requests refused with 401 or 403.", ("status",)
)
POOL_CONNECTIONS: Final = Gauge(
    contract.METRIC_DATABASE_POOL_CONNECTIONS,
    "Database connections by state (used, idle).",
    ("state",),
    multiprocess_mode="livesum",
)
POOL_WAITING: Final = Gauge(
    contract.METRIC_DATABASE_POOL_WAITING, "Requests that wait for a database connection.", multiprocess_mode="livesum"
)
AUDIT_BACKLOG: Final = Gauge(
    contract.METRIC_AUDIT_BACKLOG, "Audit lines not yet written to the log.", multiprocess_mode="livesum"
)


disable_created_metrics()  # type: ignore[no-untyped-call] # a series each that nobody reads


class RouteMetrics:
    """Children of the request series, looked up once for each route and status."""

    def __init__(self) -> None:
        self._durations: dict[tuple[str, str], BatchHistogram] = {}
        self._counts: dict[tuple[str, str, int], Counter] = {}

    def observe(self, method: str, route: str, status: int, seconds: Sequence[float]) -> None:
        """Count answered requests of one kind.

        Args:
            method: of the requests; anything unusual counts as ``OTHER``.
            route: the path's template, never the path itself.
            status: of the answers.
            seconds: that each request took.
        """
        count = self._counts.get((method, route, status))
        if count is None:
            count = self._counts[method, route, status] = HTTP_REQUESTS.labels(method, route, str(status))
        count.inc(len(seconds))
        duration = self._durations.get((method, route))
        if duration is None:
            duration = self._durations[method, route] = HTTP_DURATION.labels(method, route)
        duration.observe_all(seconds)


def render_metrics() -> tuple[bytes, str]:
    """The exposition text of this process, or of all workers, and its content type."""
    if os.environ.get(MULTIPROCESS_VARIABLE):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
