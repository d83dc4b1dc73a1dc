"""The engine that answers now: watched, so that a replaced model file is taken over without a restart."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from app.contract import MATRIX_BARS, MATRIX_FEATURES
from app.strategic import metrics
from app.strategic.engine import Engine
from app.strategic.hot_swap import HotSwap, SwapRejectedError
from app.strategic.model import DEFAULT_MODEL, ModelError
from app.strategic.settings import StrategicSettings

WATCH_SECONDS: Final = 2.0
CHECK_SECONDS: Final = 5.0

_log = structlog.stdlib.get_logger(__name__)


class LiveEngine:
    """Holds the engine in use. A batch takes ``current`` once, so no batch is answered by two models."""

    def __init__(self, settings: StrategicSettings) -> None:
        """Load the model and warm up; takes seconds, so call it in a thread.

        Raises:
            ModelError: the model is not sound; the service does not start with it.
        """
        self._settings = settings
        self._path = Path(settings.model_path or DEFAULT_MODEL)
        self._seen = self._signature()
        self._checked_at = 0.0
        self._failure: str | None = None
        self._swap = HotSwap(self._load())
        self._announce(self.current)

    @property
    def current(self) -> Engine:
        """The engine that serves now."""
        return self._swap.engine

    async def check(self) -> str | None:
        """Push the model's probe through it, for readiness; at most every few seconds."""
        if time.monotonic() - self._checked_at > CHECK_SECONDS:
            try:
                await asyncio.to_thread(self.current.check)
                self._failure = None
            except ModelError as error:
                self._failure = str(error)
            self._checked_at = time.monotonic()
        return self._failure

    async def watch(self) -> None:
        """Take over a replaced model file; one that is not sound is logged and the old one goes on."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            signature = self._signature()
            if signature is None or signature == self._seen:
                continue
            self._seen = signature
            before = self.current
            try:
                await asyncio.to_thread(self._swap.swap, self._path)
            except SwapRejectedError as error:
                _log.error("new model refused", path=str(self._path), error=str(error))
                continue
            metrics.MODEL.labels(*_labels(before)).set(0)
            self._announce(self.current)

    def _load(self) -> Engine:
        engine = Engine.load(self._path, threads=self._settings.processing_threads, precision=self._settings.precision)
        for count in (1, 2, 7, 16, 64, 128, 512):
            engine.answers(np.zeros((count, MATRIX_BARS, MATRIX_FEATURES), np.float32))
        engine.check()
        return engine

    def _announce(self, engine: Engine) -> None:
        metrics.MODEL.labels(*_labels(engine)).set(1)
        _log.info("model loaded", version=engine.version, **engine.runtime.labels())

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _labels(engine: Engine) -> tuple[str, str, str, str]:
    report = engine.runtime
    return engine.version, report.backend, report.precision, str(report.threads)
