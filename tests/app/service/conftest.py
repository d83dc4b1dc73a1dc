from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import httpx
import pytest
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.contract import STRATEGIC
from app.service.application import Application, ServiceDefinition, build, require
from app.service.audit import AuditLog
from app.service.hot_route import HotRequest, HotRoute, Reply
from app.service.logs import configure_logging
from app.service.permissions import Permission
from app.service.problems import Answer
from app.service.runtime import Runtime, create_runtime
from app.service.settings import ServiceSettings, load_settings
from app.service.tokens import mint_token

SECRET = "a secret of thirty-two bytes and more"


class Matrix(BaseModel):
    """What the test service takes."""

    data: list[list[float]] = Field(min_length=1)


routes = APIRouter()


@routes.post("/matrices", dependencies=[Depends(require(Permission.PROCESS))])
async def store_matrix(matrix: Matrix) -> Matrix:
    return matrix


@routes.get("/slow", dependencies=[Depends(require(Permission.READ))])
async def answer_late(request: Request, seconds: float) -> float:
    del request
    await asyncio.sleep(seconds)
    return seconds


@routes.get("/broken", dependencies=[Depends(require(Permission.READ))])
async def break_down() -> None:
    raise RuntimeError("secret detail")


async def count_bytes(request: HotRequest) -> Answer:
    await request.charge(len(request.body))
    return Answer(200, b'{"bytes":%d}' % len(request.body))


def begin_to_count(request: HotRequest, reply: Reply) -> bool:
    """As ``count_bytes``, without a task; a body that is not plain is left to it, one of ``later`` waits a moment."""
    if not request.body.isalpha():
        return False
    answer = Answer(200, b'{"bytes":%d}' % len(request.body), headers=((b"x-way", b"lane"),))
    asyncio.get_running_loop().call_later(0.1 if request.body == b"later" else 0, reply, answer)
    return True


HOT_ROUTE = HotRoute(
    "POST",
    "/api/strategic/bytes",
    Permission.PROCESS,
    count_bytes,
    {
        "summary": "Count bytes",
        "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {"200": {"description": "The count."}},
    },
    body_limit=100_000,
    start=begin_to_count,
)


@contextlib.asynccontextmanager
async def nothing_more(_runtime: Runtime) -> AsyncIterator[None]:
    yield


@dataclass
class RunningService:
    """A service within the test's process, with real servers behind it."""

    application: Application
    client: httpx.AsyncClient
    log: io.BytesIO

    @property
    def runtime(self) -> Runtime:
        return self.application.runtime

    def headers(self, *roles: str, subject: str = "tester", multi_factor: bool = True) -> dict[str, str]:
        token = mint_token(SECRET, subject=subject, roles=roles or ("admin",), multi_factor=multi_factor)
        return {"Authorization": f"Bearer {token}"}


StartService = Callable[..., AbstractAsyncContextManager[RunningService]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_settings(postgres: str, cache: str) -> Callable[..., ServiceSettings]:
    def make(**overrides: object) -> ServiceSettings:
        values = {"DATABASE_URL": postgres, "REDIS_URL": cache, "JWT_SECRET": SECRET, "ENVIRONMENT": "test"}
        return load_settings(ServiceSettings, {**values, **overrides})

    return make


@pytest.fixture
def start_service(make_settings: Callable[..., ServiceSettings]) -> StartService:
    @contextlib.asynccontextmanager
    async def start(**overrides: object) -> AsyncIterator[RunningService]:
        settings = make_settings(**overrides)
        runtime = create_runtime(STRATEGIC, settings)
        configure_logging("WARNING", "strategic")
        log = io.BytesIO()
        runtime.audit = AuditLog("strategic", log)
        definition = ServiceDefinition(
            STRATEGIC, "Test", "1", "A service for tests.", nothing_more, [routes], [HOT_ROUTE]
        )
        application = build(definition, settings, runtime)
        transport = httpx.ASGITransport(application.asgi, raise_app_exceptions=False)
        async with (
            application.fastapi.router.lifespan_context(application.fastapi),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            if runtime.cache.available:
                await runtime.cache.execute("FLUSHDB")
            yield RunningService(application, client, log)

    return start
