"""Starts the tactical service: ``python -m app.tactical.main``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

from starlette.types import ASGIApp

from app import __version__
from app.contract import TACTICAL
from app.service.application import Application, ServiceDefinition, build
from app.service.logs import configure_logging
from app.service.runtime import Runtime, create_runtime
from app.service.server import serve
from app.service.settings import SettingsError, load_settings
from app.tactical import api
from app.tactical.acting import act_route
from app.tactical.parts import create_parts, running
from app.tactical.registry import StorageError
from app.tactical.settings import TacticalSettings

TRAIN_BODY_LIMIT = 256 * 1024
JOB_BODY_LIMIT = 16 * 1024 * 1024  # 100,000 bars of six columns
DESCRIPTION = (
    "Trains three agents (tactical, risk, execution) with multi-agent PPO and acts with the trained models. "
    "A 200 is sent after the commit of what it reports."
)


def build_tactical(settings: TacticalSettings) -> Application:
    """The service under ``settings``; see ``parts.create_parts`` for what it raises."""
    runtime = create_runtime(TACTICAL, settings)
    parts = create_parts(settings, runtime)

    @contextlib.asynccontextmanager
    async def lifespan(opened: Runtime) -> AsyncIterator[None]:
        async with running(parts, opened):
            yield

    prefix = TACTICAL.api_prefix
    application = build(
        ServiceDefinition(
            contract=TACTICAL,
            title="GrandModel tactical service",
            version=__version__,
            description=DESCRIPTION,
            lifespan=lifespan,
            routers=[api.router],
            hot_routes=[act_route(parts.acting)],
            body_limits={f"{prefix}/train": TRAIN_BODY_LIMIT, f"{prefix}/jobs": JOB_BODY_LIMIT},
            unhurried=lambda path: path.startswith(f"{prefix}/jobs/") and path.endswith("/events"),
        ),
        settings,
        runtime,
    )
    application.fastapi.state.parts = parts
    return application


def application() -> ASGIApp:
    """What the server runs in each worker, from the environment."""
    settings = load_settings(TacticalSettings)
    configure_logging(settings.log_level, TACTICAL.service)
    return build_tactical(settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; 2 when the environment does not describe a service."""
    parser = argparse.ArgumentParser(prog="python -m app.tactical.main", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check the settings")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(TacticalSettings)
        configure_logging(settings.log_level, TACTICAL.service)
        if not options.check:
            serve("app.tactical.main:application", settings, port=TACTICAL.port)
    except (SettingsError, StorageError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
