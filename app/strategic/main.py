"""The strategic service: ``python -m app.strategic.main``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import structlog
from starlette.types import ASGIApp

from app import __version__
from app.contract import STRATEGIC
from app.service.application import Application, ServiceDefinition, build
from app.service.logs import configure_logging
from app.service.runtime import Runtime, create_runtime
from app.service.server import serve
from app.service.settings import SettingsError, load_settings
from app.strategic.api import ProcessRoute, process_route, router
from app.strategic.batcher import Batcher
from app.strategic.live_engine import LiveEngine
from app.strategic.settings import StrategicSettings

DESCRIPTION = (
    "Reads matrices of 48 bars of 30 minutes x 13 features; answers with a decision, its uncertainty, the market "
    "regime and a pattern for similarity search. A 200 is sent only once the decision is durable."
)

_log = structlog.stdlib.get_logger(__name__)


def create_application(settings: StrategicSettings, runtime: Runtime | None = None) -> Application:
    """The service under ``settings``."""
    route = ProcessRoute()

    @contextlib.asynccontextmanager
    async def lifespan(runtime: Runtime) -> AsyncIterator[None]:
        engine = await asyncio.to_thread(LiveEngine, settings)
        runtime.checks["engine"] = engine.check
        batcher = Batcher(
            lambda: engine.current,
            runtime.database,
            connections=settings.store_connections,
            batch_samples=settings.batch_samples,
            queue_samples=settings.queue_samples,
            commit_timeout=settings.commit_timeout,
            patience=settings.request_timeout,
        )
        await batcher.open()
        runtime.checks["store"] = batcher.check
        watch = asyncio.create_task(engine.watch(), name="model-watch")
        route.batcher = batcher
        try:
            yield
        finally:
            route.batcher = None
            watch.cancel()
            await batcher.close()

    definition = ServiceDefinition(
        contract=STRATEGIC,
        title="GrandModel strategic",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        routers=[router(settings.search_probes)],
        hot_routes=[process_route(route)],
    )
    parts = runtime if runtime is not None else create_runtime(STRATEGIC, settings)
    return build(definition, settings, parts)


def application() -> ASGIApp:
    """What each worker process runs; settings come from the environment."""
    settings = load_settings(StrategicSettings)
    configure_logging(settings.log_level, STRATEGIC.service)
    return create_application(settings)


def main() -> int:
    """Serve until a signal; 2 when the environment does not describe the service."""
    try:
        settings = load_settings(StrategicSettings)
    except SettingsError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    configure_logging(settings.log_level, STRATEGIC.service)
    serve("app.strategic.main:application", settings, port=STRATEGIC.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
