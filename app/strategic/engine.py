"""The engine: matrices in, decisions out, in one fused pass over the batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from app.strategic.agents import BARS, FEATURES
from app.strategic.answers import ANSWER_WIDTH, Decisions
from app.strategic.model import DEFAULT_MODEL, ModelError, StrategicModel, load_model
from app.strategic.runtime import TOLERANCE, Lane, Precision, choose, measure_error

Float32 = NDArray[np.float32]
IntArray = NDArray[np.int64]

_Task = tuple[Callable[[], None], "SimpleQueue[Exception | None]"]
"""What a helping thread does, and where it says that it has."""

SHARED_FROM: Final = 128
"""Smallest batch that more than one thread shares: below it the hand-over costs more than it saves."""


class Engine:
    """A loaded model ready to answer; safe to call from several threads.

    Create with `Engine.load`. A batch is cut into blocks that stay in the second-level cache; ``threads`` share them.

    Attributes:
        model: that answers.
        runtime: what was chosen at start-up and why.
        threads: that share a batch.
        precision: as asked for.
    """

    def __init__(self, model: StrategicModel, *, threads: int = 1, precision: Precision = "auto") -> None:
        """Choose the runtime for a model that is already in memory; arguments and errors as for `load`."""
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1")
        lanes, self.runtime = choose(model, threads=threads, precision=precision)
        self.model = model
        self.threads = threads
        self.precision: Precision = precision
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._lanes.put(lane)
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        for number in range(threads - 1):
            Thread(target=_help, args=(self._tasks,), name=f"engine-{number}", daemon=True).start()
        weakref.finalize(self, _dismiss, self._tasks, threads - 1)

    @classmethod
    def load(cls, path: Path | str = DEFAULT_MODEL, *, threads: int = 1, precision: Precision = "auto") -> Self:
        """Load a model file, compile, and choose the fastest backend that reproduces its recorded answers.

        Args:
            path: of the model file; the shipped model by default.
            threads: that share one batch, at least 1.
            precision: of the first product: "float32", or "auto" to allow bfloat16 where the CPU has it and the answers
                recorded in float32 are reproduced.

        Raises:
            ModelError: The file is not a sound model, or no backend reproduces its recorded answers.
            ValueError: ``threads`` is below 1.
        """
        return cls(load_model(Path(path)), threads=threads, precision=precision)

    @property
    def version(self) -> str:
        """Version of the model that answers."""
        return self.model.version

    def check(self) -> float:
        """Answer the model's probe again and return the greatest difference from its recorded answers.

        Raises:
            ModelError: The difference exceeds `runtime.TOLERANCE`.
        """
        lane = self._lanes.get()
        try:
            error = measure_error(lane, self.model.probe)
        finally:
            self._lanes.put(lane)
        if not error <= TOLERANCE:
            raise ModelError(f"model {self.version}: recorded answers are missed by {error:.2g}")
        return error

    def process(self, matrices: Float32) -> Decisions:
        """Answer a batch.

        Args:
            matrices: (N, 48, 13) finite float32, N >= 0; bars in order of time, features in the order of
                `app.market.features.STRATEGIC_FEATURES`.

        Raises:
            ValueError: Another shape.
        """
        if matrices.ndim != 3 or matrices.shape[1:] != (BARS, FEATURES):
            raise ValueError(f"matrices have shape {matrices.shape}, expected (N, {BARS}, {FEATURES})")
        answers, choices = self._compute(np.ascontiguousarray(matrices, dtype=np.float32))
        return Decisions(answers, choices, self.model.version)

    def answers(self, matrices: Float32) -> Float32:
        """The answers as rows of `answers.ANSWER_COLUMNS`, (N, 43)."""
        return self._compute(np.ascontiguousarray(matrices, dtype=np.float32))[0]

    def _compute(self, matrices: Float32) -> tuple[Float32, IntArray]:
        count = len(matrices)
        answers = np.empty((count, ANSWER_WIDTH), np.float32)
        choices = np.empty((count, 3), np.int64)
        if self.threads == 1 or count < SHARED_FROM:
            self._answer(matrices, answers, choices)
            return answers, choices
        share = -(-count // self.threads)
        parts = [slice(start, start + share) for start in range(0, count, share)]
        done: SimpleQueue[Exception | None] = SimpleQueue()
        for part in parts[1:]:
            self._tasks.put((partial(self._answer, matrices[part], answers[part], choices[part]), done))
        failures: list[Exception | None] = []
        try:
            self._answer(matrices[parts[0]], answers[parts[0]], choices[parts[0]])
        finally:  # the others write into these arrays until they say that they have done
            failures = [done.get() for _ in parts[1:]]
        for failure in failures:
            if failure is not None:
                raise failure
        return answers, choices

    def _answer(self, matrices: Float32, answers: Float32, choices: IntArray) -> None:
        lane = self._lanes.get()
        try:
            lane.answer(matrices, answers, choices)
        finally:
            self._lanes.put(lane)


def _help(tasks: SimpleQueue[_Task | None]) -> None:
    """What a helping thread does until it is dismissed: a queue hands over sooner than an executor."""
    while (task := tasks.get()) is not None:
        work, done = task
        try:
            work()
            done.put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            done.put(error)
        del task, work


def _dismiss(tasks: SimpleQueue[_Task | None], count: int) -> None:
    for _ in range(count):
        tasks.put(None)
