"""Makes the ASGI application of a service: FastAPI with the shared routes and problem answers, behind the edge."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app import contract
from app.service import openapi, probes
from app.service.edge import Edge
from app.service.hot_lane import HotLane
from app.service.hot_route import HotRoute
from app.service.permissions import Permission, Principal
from app.service.problems import FieldError, ProblemError, json_pointer, problem_answer, unprocessable
from app.service.runtime import Runtime, create_runtime
from app.service.server import forget_dead_workers, graceful_drain, settle_garbage_collector
from app.service.settings import ServiceSettings
from app.service.tls import watch_certificates

_log = structlog.stdlib.get_logger(__name__)

DOCUMENT_PATHS: Final = frozenset({"/openapi.json", "/docs", "/docs/oauth2-redirect"})


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """What distinguishes one service from the other."""

    contract: contract.ServiceContract
    title: str
    version: str
    description: str
    lifespan: Callable[[Runtime], AbstractAsyncContextManager[None]]
    """Entered when the runtime is open (database and cache may be away): loads, warms up, adds ``runtime.checks``,
    starts tasks. Readiness begins when it has been entered. Left after the last request."""
    routers: Sequence[APIRouter] = ()
    hot_routes: Sequence[HotRoute] = ()
    body_limits: Mapping[str, int] = field(default_factory=dict)
    """Bytes by path, where a path takes less than the settings' ``body_limit``."""
    unhurried: Callable[[str], bool] = lambda _path: False
    """Whether a path answers with a stream that outlives the request timeout."""


@dataclass(frozen=True, slots=True)
class Application:
    """A built service."""

    asgi: ASGIApp
    """What answers."""
    hot_lane: HotLane
    """What begins ordinary requests to hot routes, for a server that offers them (`http_protocol`)."""
    fastapi: FastAPI
    """Behind the edge; its ``openapi()`` describes everything, hot routes included."""
    runtime: Runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        await self.asgi(scope, receive, send)


def build(definition: ServiceDefinition, settings: ServiceSettings, runtime: Runtime | None = None) -> Application:
    """The application of ``definition`` under ``settings``; ``runtime`` if the caller has already created it."""
    parts = create_runtime(definition.contract, settings) if runtime is None else runtime
    app = FastAPI(
        title=definition.title,
        version=definition.version,
        description=definition.description,
        lifespan=_lifespan(definition, parts),
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.runtime = parts
    prefix = definition.contract.api_prefix
    app.include_router(probes.router(parts, prefix))
    for router in definition.routers:
        app.include_router(router, prefix=prefix)
    app.add_exception_handler(HTTPException, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(Exception, _answer_failure)
    public = frozenset(
        {contract.HEALTH_PATH, contract.READY_PATH, contract.METRICS_PATH, f"{prefix}/health", *DOCUMENT_PATHS}
    )
    openapi.describe(app, definition.hot_routes, public)
    edge = Edge(
        app,
        parts,
        hot_routes=definition.hot_routes,
        public_paths=public,
        body_limits=definition.body_limits,
        unhurried_paths=definition.unhurried,
    )
    asgi: ASGIApp = edge
    if settings.cors_origins:
        asgi = CORSMiddleware(
            edge,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"],
            expose_headers=["Idempotent-Replayed", "X-Request-ID", "Retry-After"],
        )
    return Application(asgi, edge.hot_lane, app, parts)


def principal_of(request: Request) -> Principal:
    """Who asks, as the edge has verified."""
    principal: Principal = request.scope["principal"]
    return principal


def require(permission: Permission) -> Callable[[Request], Principal]:
    """A dependency that lets a request pass only with ``permission``, and changes only while they can be stored."""

    def demand(request: Request) -> Principal:
        runtime: Runtime = request.app.state.runtime
        principal = principal_of(request)
        principal.demand(permission, multi_factor_required=runtime.multi_factor_required)
        if permission.changes_something:
            runtime.demand_writable()
        return principal

    return demand


def _lifespan(
    definition: ServiceDefinition, runtime: Runtime
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        began = time.perf_counter()
        forget_dead_workers()
        await runtime.open()
        certificates = asyncio.create_task(watch_certificates(), name="certificate-watch")
        try:
            async with definition.lifespan(runtime):
                await asyncio.to_thread(settle_garbage_collector)
                runtime.started = True
                _log.info("started", seconds=round(time.perf_counter() - began, 3))
                with graceful_drain(runtime.draining, runtime.settings.drain_seconds):
                    yield
                runtime.draining.set()
        finally:
            certificates.cancel()
            await runtime.close()

    return lifespan


def _request_id(request: Request) -> str:
    return str(request.scope.get("request_id", "-"))


def _problem_response(request: Request, error: HTTPException) -> Response:
    answer = problem_answer(error, _request_id(request))
    response = Response(answer.body, answer.status, media_type=answer.content_type.decode())
    for name, value in answer.headers:
        response.headers[name.decode()] = value.decode("latin-1")
    return response


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    if error.status_code == 405:
        allow = ", ".join(openapi.methods_of(request.app, request.url.path))
        error = ProblemError(405, "method-not-allowed", f"Use {allow}.", headers={"Allow": allow})
    return _problem_response(request, error)


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    return _problem_response(request, validation_problem(error.errors()))


async def _answer_failure(request: Request, _error: Exception) -> Response:
    detail = "The service failed; the log has the details."
    return _problem_response(request, ProblemError(500, "internal-error", detail))


MAXIMUM_REPORTED_ERRORS: Final = 20


def body_problem(error: ValidationError) -> ProblemError:
    """The same as FastAPI's routes answer, for a hot route whose body pydantic has refused."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    return validation_problem([{**mistake, "loc": ("body", *mistake["loc"])} for mistake in errors])


def validation_problem(errors: Sequence[Mapping[str, Any]]) -> ProblemError:
    """422 (400 for broken JSON) that points to each offending element, from pydantic's errors."""
    if any(error["type"] == "json_invalid" for error in errors):
        reason = errors[0].get("ctx", {}).get("error", errors[0]["msg"])
        where = f" at character {errors[0]['loc'][-1]}" if isinstance(errors[0]["loc"][-1], int) else ""
        return ProblemError(400, "invalid-json", f"The body is not JSON: {reason}{where}.")
    found = [
        FieldError(_pointer(error["loc"]), str(error["msg"]).removeprefix("Value error, "))
        for error in errors[:MAXIMUM_REPORTED_ERRORS]
    ]
    count = len(errors)
    noun = "element of the request is" if count == 1 else "elements of the request are"
    return unprocessable(f"{count} {noun} wrong.", found)


def _pointer(location: Sequence[str | int]) -> str:
    if location and location[0] == "body":
        return json_pointer(location[1:])
    return " ".join(str(part) for part in location)
