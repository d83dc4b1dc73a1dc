"""What is kept of every answered request: a number in the metrics and a line in the audit log."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping
from typing import Final

from app.service import metrics
from app.service.audit import Access, AuditLog

ANONYMOUS: Final = "-"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class RequestIds:
    """Names requests: as the client does, if it sends ``X-Request-ID`` in a harmless form."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._count = 0

    def of(self, headers: Mapping[bytes, bytes]) -> str:
        """The id of a request with these headers."""
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        self._count += 1
        return f"{self._prefix}{self._count:08x}"


class Journal:
    """Counts and records answered requests."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._metrics = metrics.RouteMetrics()
        self._gathered: dict[tuple[str, str, int], list[float]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request now; arguments as `metrics.RouteMetrics.observe` takes them."""
        self._metrics.observe(method, route, status, (seconds,))
        if status in {401, 403}:
            metrics.AUTHENTICATION_FAILURES.labels(str(status)).inc()
        elif status == 429:
            metrics.RATE_LIMITED.inc()

    def count_soon(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a successful request together with all others that are answered in the same turn of the event loop."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._count_gathered)
        self._gathered.setdefault((method, route, status), []).append(seconds)

    def record(
        self, *, method: str, path: str, status: int, seconds: float, request_id: str, subject: str, client: str
    ) -> None:
        """Write a line to the audit log; returns at once."""
        self._audit.record(Access(time.time(), request_id, subject, client, method, path, status, seconds))

    def _count_gathered(self) -> None:
        for (method, route, status), seconds in self._gathered.items():
            self._metrics.observe(method, route, status, seconds)
        self._gathered.clear()
