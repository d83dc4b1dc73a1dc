"""The short way of an ordinary request to a hot route: no task, no ASGI messages, no timers.

A request is ordinary when it arrived whole, its token is known, its client has requests left in the local bucket,
everything that a change needs is there, and the route itself sees nothing unusual in it. Such a request is handed to
the route's ``start`` at once, and the route calls back when its answer is durable. Whatever else there is, a mistake
above all, is left to the edge with nothing done, so that every refusal has one origin.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from app.service.hot_route import HotRequest, HotRoute
from app.service.journal import Journal, RequestIds
from app.service.permissions import Principal
from app.service.problems import Answer, ProblemError, problem_answer
from app.service.runtime import Runtime


class Wire(Protocol):
    """The connection that a request came by."""

    @property
    def client(self) -> str:
        """Address of the client."""

    @property
    def disconnected(self) -> bool:
        """Whether the client has gone."""

    def send(self, answer: Answer, request_id: str) -> None:
        """Send an answer; does nothing when the client has gone."""


class HotLane:
    """Begins ordinary requests."""

    def __init__(self, runtime: Runtime, routes: Sequence[HotRoute], journal: Journal, request_ids: RequestIds) -> None:
        self._runtime = runtime
        self._routes = {(route.method.encode(), route.path.encode()): route for route in routes if route.start}
        self._journal = journal
        self._request_ids = request_ids

    def route(self, method: bytes, url: bytes) -> HotRoute | None:
        """The route that may begin a request; a URL with a query or an escape is not ordinary."""
        return self._routes.get((method, url))

    def begin(self, route: HotRoute, headers: Mapping[bytes, bytes], body: bytes, wire: Wire) -> bool:
        """Begin a request; False, with nothing done, when it is not ordinary."""
        principal = self._admit(route, headers, len(body))
        if principal is None or route.start is None:
            return False
        runtime = self._runtime
        request_id = self._request_ids.of(headers)
        exchange = _Exchange(route, request_id, principal.subject, wire, runtime, self._journal)
        if not route.start(HotRequest(headers, body, principal, request_id, b"", runtime), exchange):
            runtime.limiter.give_back(principal.subject)
            return False
        runtime.in_flight += 1
        return True

    def _admit(self, route: HotRoute, headers: Mapping[bytes, bytes], size: int) -> Principal | None:
        """Who asks, if nothing stands against it; the client's minute has then paid for one request."""
        runtime = self._runtime
        authorization = headers.get(b"authorization")
        limit = runtime.settings.body_limit if route.body_limit is None else route.body_limit
        unusual = b"content-encoding" in headers or b"origin" in headers
        if authorization is None or unusual or size > limit or not runtime.audit.accepts:
            return None
        try:
            principal = runtime.verifier.cached(authorization)
            if principal is None:
                return None
            principal.demand(route.permission, multi_factor_required=runtime.multi_factor_required)
            if route.permission.changes_something:
                runtime.demand_writable()
        except ProblemError:
            return None
        return principal if runtime.limiter.try_admit(principal.subject) else None


class _Exchange:
    """A request that was begun, and the way of its answer: `hot_route.Reply`."""

    __slots__ = ("_journal", "_request_id", "_route", "_runtime", "_started_at", "_subject", "_wire")

    def __init__(
        self, route: HotRoute, request_id: str, subject: str, wire: Wire, runtime: Runtime, journal: Journal
    ) -> None:
        self._route = route
        self._request_id = request_id
        self._subject = subject
        self._wire = wire
        self._runtime = runtime
        self._journal = journal
        self._started_at = time.perf_counter()

    @property
    def gone(self) -> bool:
        return self._wire.disconnected

    def __call__(self, answer: Answer | ProblemError, /) -> None:
        if isinstance(answer, ProblemError):
            answer = problem_answer(answer, self._request_id)
        self._runtime.in_flight -= 1
        status = 499 if self._wire.disconnected else answer.status
        self._wire.send(answer, self._request_id)
        route, seconds = self._route, time.perf_counter() - self._started_at
        count = self._journal.count_soon if status == 200 else self._journal.count
        count(route.method, route.path, status, seconds)
        self._journal.record(
            method=route.method,
            path=route.path,
            status=status,
            seconds=seconds,
            request_id=self._request_id,
            subject=self._subject,
            client=self._wire.client,
        )
