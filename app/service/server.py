"""Runs a service: uvicorn with uvloop and httptools, TLS, worker processes on one port, graceful drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from app.service.fair_accept import SHARES_FILE, Shares
from app.service.http_protocol import LaneProtocol
from app.service.metrics import MULTIPROCESS_VARIABLE
from app.service.settings import ServiceSettings
from app.service.tls import reloading_context

BACKLOG: Final = 4096
# A full pass of the collector over torch's objects takes 90 ms: after warm-up they are taken out of its sight.
GC_THRESHOLDS: Final = (50_000, 50, 1000)

_log = structlog.stdlib.get_logger(__name__)


def settle_garbage_collector() -> None:
    """Collect once, then keep everything alive now out of later collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@contextlib.contextmanager
def graceful_drain(draining: asyncio.Event, seconds: float) -> Iterator[None]:
    """On SIGTERM set ``draining`` first, and let the server stop accepting only ``seconds`` later.

    The load balancer needs that time to see readiness fail. A second signal stops at once. Must be entered in the
    main thread after the server has installed its own handler; elsewhere it does nothing.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(previous) or seconds == 0:
        yield
        return
    loop = asyncio.get_running_loop()

    def begin(number: int, frame: FrameType | None) -> Any:  # noqa: ANN401 - the server's handler returns anything
        if draining.is_set():
            return previous(number, frame)
        loop.call_soon_threadsafe(_drain, draining)
        loop.call_soon_threadsafe(loop.call_later, seconds, previous, number, None)
        return None

    signal.signal(signal.SIGTERM, begin)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _drain(draining: asyncio.Event) -> None:
    draining.set()
    _log.info("draining")


def serve(factory: str, settings: ServiceSettings, *, port: int) -> None:
    """Run the service until a signal stops it.

    Args:
        factory: import string (``module:function``) of what makes the ASGI application, called in each worker.
        settings: host, port, TLS, workers.
        port: where the settings name none.
    """
    _allow_many_connections()
    config = uvicorn.Config(
        factory,
        factory=True,
        host=settings.host,
        port=port if settings.port is None else settings.port,
        workers=settings.workers,
        loop="app.service.fair_accept:FairLoop",
        http=LaneProtocol,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        server_header=False,
        # The load balancer keeps clients' addresses; nobody's forwarded header is trusted, so nothing reads one.
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.request_timeout)),
        timeout_worker_healthcheck=30,
        ssl_certfile=settings.ssl_cert_path if settings.ssl_enabled else None,
        ssl_keyfile=settings.ssl_key_path if settings.ssl_enabled else None,
        ssl_context_factory=reloading_context if settings.ssl_enabled else None,
    )
    if settings.workers == 1:
        uvicorn.Server(config).run()
        return
    with tempfile.TemporaryDirectory(prefix="metrics-") as directory:
        os.environ[MULTIPROCESS_VARIABLE] = directory
        Shares.prepare(Path(directory) / SHARES_FILE, settings.workers)
        Multiprocess(config, sockets=[config.bind_socket()]).run()


def _allow_many_connections() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def forget_dead_workers() -> None:
    """Remove the gauges that workers which died left among the shared metric files."""
    directory = os.environ.get(MULTIPROCESS_VARIABLE)
    if directory is None:
        return
    for file in Path(directory).glob("gauge_live*_*.db"):
        if not Path(f"/proc/{file.stem.rpartition('_')[2]}").exists():
            file.unlink(missing_ok=True)
