"""Liveness, readiness and metrics."""

from __future__ import annotations

from typing import Literal

import orjson
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from app import contract
from app.service.metrics import render_metrics
from app.service.problems import PROBLEM_JSON, TYPE_PREFIX
from app.service.runtime import Runtime

RETRY_AFTER_SECONDS = "1"


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ServiceHealth(BaseModel):
    """What works and what does not."""

    service: str = Field(examples=["tactical"])
    status: Literal["ready", "degraded"]
    missing: dict[str, str] = Field(examples=[{"database": "connection refused"}])
    environment: str = Field(examples=["staging"])


class Readiness(BaseModel):
    """The service takes work."""

    status: Literal["ready"] = "ready"


def router(runtime: Runtime, api_prefix: str) -> APIRouter:
    """The routes that probes, scrapes and people on call ask; none needs a token and none tells a secret."""
    routes = APIRouter(tags=["operation"])

    @routes.get(contract.HEALTH_PATH, summary="Is the process alive?")
    async def health() -> Health:
        return Health()

    @routes.get(
        contract.READY_PATH,
        summary="Does the service take work?",
        response_model=Readiness,
        responses={503: {"description": "`missing` names what is missing.", "content": {PROBLEM_JSON: {}}}},
    )
    async def ready() -> Response:
        missing = await runtime.missing()
        if not missing:
            return Response(orjson.dumps({"status": "ready"}), media_type="application/json")
        problem = {
            "type": TYPE_PREFIX + "not-ready",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "; ".join(f"{part}: {reason}" for part, reason in missing.items()),
            "missing": missing,
        }
        return Response(
            orjson.dumps(problem), 503, media_type=PROBLEM_JSON, headers={"Retry-After": RETRY_AFTER_SECONDS}
        )

    @routes.get(f"{api_prefix}/health", summary="What works and what does not?")
    async def service_health() -> ServiceHealth:
        missing = await runtime.missing()
        return ServiceHealth(
            service=runtime.contract.service,
            status="degraded" if missing else "ready",
            missing=missing,
            environment=runtime.settings.environment,
        )

    if runtime.settings.prometheus_enabled:

        @routes.get(contract.METRICS_PATH, summary="Prometheus exposition", response_class=Response)
        async def metrics() -> Response:
            runtime.sample_metrics()
            text, content_type = render_metrics()
            return Response(text, media_type=content_type)

    return routes
