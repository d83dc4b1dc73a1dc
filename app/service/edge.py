"""The ASGI application in front of FastAPI: everything that holds for every request, in one pass without layers.

In order: request id, public paths, authentication, rate limit, readiness for changes, body (counted, decompressed,
within the timeout), then a hot route or FastAPI's router; then headers, metrics and the audit line. A hot route is a
function of ``HotRequest``; it costs no routing, no pydantic and no dependency injection, and is described in OpenAPI
by the document that it brings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from app.service.body import BodyBudget, ClientDisconnectedError, Message, Receive, Scope, Send, read_body
from app.service.hot_lane import HotLane
from app.service.hot_route import HotRequest, HotRoute
from app.service.journal import ANONYMOUS, Journal, RequestIds
from app.service.permissions import Principal
from app.service.problems import Answer, ProblemError, problem_answer, unavailable
from app.service.runtime import Runtime

UNMATCHED: Final = "unmatched"
"""Route of requests that no route was found for, in the metrics."""
JSON: Final = "application/json"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_log = structlog.stdlib.get_logger(__name__)


class _Exchange:
    """One request and what is known of its answer. The inner application sees ``send`` as ASGI's send."""

    __slots__ = ("_extra_headers", "_outer_send", "principal", "request_id", "started_at", "status")

    def __init__(self, outer_send: Send, request_id: str, extra_headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._outer_send = outer_send
        self._extra_headers = extra_headers
        self.request_id = request_id
        self.principal: Principal | None = None
        self.status = 0
        self.started_at = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._extra_headers]
        await self._outer_send(message)

    async def answer(self, answer: Answer) -> None:
        self.status = answer.status
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
            *self._extra_headers,
        ]
        await self._outer_send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._outer_send({"type": "http.response.body", "body": answer.body})


class Edge:
    """ASGI application: the edge around FastAPI."""

    def __init__(
        self,
        inner: ASGIApp,
        runtime: Runtime,
        *,
        hot_routes: Sequence[HotRoute],
        public_paths: frozenset[str],
        body_limits: Mapping[str, int],
        unhurried_paths: Callable[[str], bool],
    ) -> None:
        """Put the edge in front of ``inner``.

        Args:
            inner: FastAPI's application.
            runtime: the service's parts.
            hot_routes: routes served ahead of ``inner``.
            public_paths: paths that need no token.
            body_limits: bytes by path, where a path takes less than the service's limit.
            unhurried_paths: whether a path may answer longer than the request timeout (streams).
        """
        self._inner = inner
        self._runtime = runtime
        self._hot = {(route.method, route.path): route for route in hot_routes}
        self._allowed: dict[str, list[str]] = {}
        for route in hot_routes:
            self._allowed.setdefault(route.path, []).append(route.method)
        self._public = public_paths
        self._body_limits = {
            **body_limits,
            **{route.path: route.body_limit for route in hot_routes if route.body_limit is not None},
        }
        self._unhurried = unhurried_paths
        self._budget = BodyBudget(runtime.settings.body_memory)
        self._request_ids = RequestIds()
        self._journal = Journal(runtime.audit)
        self.hot_lane = HotLane(runtime, hot_routes, self._journal, self._request_ids)
        """For servers that can begin a request without a task; whoever knows only ASGI needs it not."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of the server."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = self._request_ids.of(headers)
        exchange = _Exchange(send, request_id, ((b"x-request-id", request_id.encode()),))
        self._runtime.in_flight += 1
        route = UNMATCHED
        try:
            route = await self._serve(scope, receive, headers, exchange)
        except HTTPException as error:
            route = self._route_name(scope)
            await self._refuse(exchange, error)
        except ClientDisconnectedError:
            exchange.status = exchange.status or 499
        except Exception as error:  # noqa: BLE001 - the last line of defence: answer, log, go on
            route = self._route_name(scope)
            await self._fail(exchange, error)
        finally:
            self._runtime.in_flight -= 1
            self._finish(scope, exchange, route)

    async def _serve(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], exchange: _Exchange) -> str:
        path: str = scope["path"]
        scope["request_id"] = exchange.request_id
        if path in self._public or scope["method"] == "OPTIONS":
            await self._forward(scope, receive, exchange)
            return self._route_name(scope)
        runtime = self._runtime
        if not runtime.audit.accepts:
            raise unavailable("The audit log cannot be written.", 5.0)
        authorization = headers.get(b"authorization")
        principal = runtime.verifier.cached(authorization) if authorization is not None else None
        if principal is None:
            principal = await runtime.verifier.verify(authorization)
        exchange.principal = principal
        if not runtime.limiter.try_admit(principal.subject):
            await runtime.limiter.admit(principal.subject)
        hot = self._hot.get((scope["method"], path))
        if hot is not None:
            await self._serve_hot(hot, scope, receive, headers, exchange, principal)
            return path
        if path in self._allowed:
            allow = ", ".join(self._allowed[path])
            raise ProblemError(405, "method-not-allowed", f"Use {allow}.", headers={"Allow": allow})
        scope["principal"] = principal
        if self._unhurried(path):
            await self._forward(scope, receive, exchange)
        else:
            await self._serve_router(scope, receive, headers, exchange)
        return self._route_name(scope)

    async def _serve_hot(
        self,
        hot: HotRoute,
        scope: Scope,
        receive: Receive,
        headers: dict[bytes, bytes],
        exchange: _Exchange,
        principal: Principal,
    ) -> None:
        runtime = self._runtime
        principal.demand(hot.permission, multi_factor_required=runtime.multi_factor_required)
        if hot.permission.changes_something:
            runtime.demand_writable()
        reserved = 0
        try:
            async with asyncio.timeout(runtime.settings.request_timeout) as deadline:
                body, reserved = await self._read(hot.path, receive, headers)
                answer = await hot.handler(
                    HotRequest(headers, body, principal, exchange.request_id, scope["query_string"], runtime)
                )
            await exchange.answer(answer)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._too_slow() from None
        finally:
            self._budget.give_back(reserved)

    async def _serve_router(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], exchange: _Exchange
    ) -> None:
        reserved = 0
        replay = receive
        try:
            async with asyncio.timeout(self._runtime.settings.request_timeout) as deadline:
                if scope["method"] in _WITH_BODY:
                    body, reserved = await self._read(scope["path"], receive, headers)
                    _demand_json(body, headers)
                    replay = _replay(body, receive)
                    scope["headers"] = [
                        (name, value)
                        for name, value in scope["headers"]
                        if name not in {b"content-encoding", b"content-length", b"transfer-encoding"}
                    ] + [(b"content-length", b"%d" % len(body))]
                await self._forward(scope, replay, exchange)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._too_slow() from None
        finally:
            self._budget.give_back(reserved)

    async def _read(self, path: str, receive: Receive, headers: dict[bytes, bytes]) -> tuple[bytes, int]:
        limit = self._body_limits.get(path, self._runtime.settings.body_limit)
        return await read_body(
            receive, limit=limit, encoding=headers.get(b"content-encoding", b"").lower(), budget=self._budget
        )

    async def _forward(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            await self._inner(scope, receive, exchange.send)

    def _too_slow(self) -> ProblemError:
        seconds = self._runtime.settings.request_timeout
        return ProblemError(
            408,
            "request-timeout",
            f"The request was not complete and answered within {seconds:g} s.",
            headers={"Connection": "close"},
        )

    async def _refuse(self, exchange: _Exchange, error: HTTPException) -> None:
        if exchange.status == 0:
            await exchange.answer(problem_answer(error, exchange.request_id))

    async def _fail(self, exchange: _Exchange, error: Exception) -> None:
        _log.error("request failed", request_id=exchange.request_id, exc_info=error)
        if exchange.status == 0:
            problem = ProblemError(500, "internal-error", "The service failed; the log has the details.")
            await exchange.answer(problem_answer(problem, exchange.request_id))

    def _finish(self, scope: Scope, exchange: _Exchange, route: str) -> None:
        seconds = time.perf_counter() - exchange.started_at
        method: str = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._journal.count(method, route, exchange.status, seconds)
        if route in self._public and exchange.status < 400:
            return  # probes and scrapes every few seconds would drown the audit log
        client = scope["client"]
        self._journal.record(
            method=method,
            path=scope["path"],
            status=exchange.status,
            seconds=seconds,
            request_id=exchange.request_id,
            subject=exchange.principal.subject if exchange.principal is not None else ANONYMOUS,
            client=client[0] if client else ANONYMOUS,
        )

    def _route_name(self, scope: Scope) -> str:
        """The path's template, so that the number of series stays bounded."""
        if (scope["method"], scope["path"]) in self._hot or scope["path"] in self._public:
            return str(scope["path"])
        template = getattr(scope.get("route"), "path", None)
        if template is None:
            return UNMATCHED
        prefix = self._runtime.contract.api_prefix
        if scope["path"].startswith(f"{prefix}/") and not template.startswith(prefix):
            return f"{prefix}{template}"  # FastAPI tells a router's routes without the prefix they are included under
        return str(template)


def _demand_json(body: bytes, headers: Mapping[bytes, bytes]) -> None:
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and media_type != b"application/json":
        raise ProblemError(
            415, "unsupported-media-type", "Content-Type must be application/json.", headers={"Accept": JSON}
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives ``body`` first and then whatever the server says."""
    delivered = False

    async def replay() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
