"""Replaces the model while requests are answered: a new one serves only after it has proven itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.strategic.answers import Decisions
from app.strategic.engine import Engine
from app.strategic.model import ModelError


class SwapRejectedError(RuntimeError):
    """The new model does not serve, the old one still does; the message says why."""


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap that happened.

    Attributes:
        before: version that served until now.
        after: version that serves now.
        largest_error: greatest difference of the new engine's answers from those recorded with the model.
        seconds: from the call to the first request that the new model can answer.
    """

    before: str
    after: str
    largest_error: float
    seconds: float


class HotSwap:
    """Holds the engine that serves. Requests never wait for a swap, and each is answered by one model throughout."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._previous: Engine | None = None
        self._swapping = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The engine that serves now; keep the reference for all parts of one request."""
        return self._engine

    def process(self, matrices: NDArray[np.float32]) -> Decisions:
        """Answer a batch with the engine that serves when the call begins; see `Engine.process`."""
        return self._engine.process(matrices)

    def swap(self, path: Path | str, *, checksum: str | None = None) -> Swap:
        """Load a model beside the one that serves, check it, and let it serve.

        The file's own checksum is verified, its runtime is chosen and its recorded answers are reproduced before the
        exchange, and once more through this holder after it; if that fails, the exchange is undone.

        Args:
            path: of the new model file.
            checksum: SHA-256 of the weights that must be loaded (`StrategicModel.checksum`); None takes any model.

        Raises:
            SwapRejectedError: The file is unsound, is another model than asked for, or another swap is going on.
        """
        if not self._swapping.acquire(blocking=False):
            raise SwapRejectedError("another swap is going on; try again when it has finished")
        started = time.perf_counter()
        try:
            serving = self._engine
            try:
                engine = Engine.load(path, threads=serving.threads, precision=serving.precision)
            except ModelError as error:
                raise SwapRejectedError(f"{error}; {serving.version} still serves") from error
            if checksum is not None and engine.model.checksum != checksum:
                raise SwapRejectedError(
                    f"{path}: holds model {engine.model.checksum}, not {checksum}; {serving.version} still serves"
                )
            self._engine = engine
            try:
                error_now = self._engine.check()
            except Exception as error:
                self._engine = serving
                raise SwapRejectedError(f"{error}; rolled back to {serving.version}") from error
            self._previous = serving
            return Swap(serving.version, engine.version, error_now, time.perf_counter() - started)
        finally:
            self._swapping.release()

    def roll_back(self) -> Swap:
        """Let the model serve again that served before the last swap.

        Raises:
            SwapRejectedError: There is none, or a swap is going on.
        """
        if not self._swapping.acquire(blocking=False):
            raise SwapRejectedError("another swap is going on; try again when it has finished")
        started = time.perf_counter()
        try:
            if self._previous is None:
                raise SwapRejectedError("no earlier model to go back to")
            serving, self._engine, self._previous = self._engine, self._previous, None
            return Swap(serving.version, self._engine.version, 0.0, time.perf_counter() - started)
        finally:
            self._swapping.release()
