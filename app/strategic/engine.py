"""The engine: matrices in, decisions out, in one fused pass over the batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from app.strategic.agents import BARS, FEATURES, SIGNAL_WIDTH
from app.strategic.answers import Decisions
from app.strategic.kernels import ANSWER_COLUMNS, ANSWER_WIDTH, conclude, prepare
from app.strategic.model import DEFAULT_MODEL, ModelError, StrategicModel, load_model
from app.strategic.runtime import Backend, BlasBackend, RuntimeReport

Float32 = NDArray[np.float32]
Precision = Literal["auto", "float32", "bfloat16"]

BLOCK = 128
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-3}


class Engine:
    """A loaded model ready to answer; safe to call from several threads.

    Create with `Engine.load`. A batch is cut into blocks that stay in the second-level cache; ``threads`` share them.
    """

    def __init__(self, model: StrategicModel, *, threads: int = 1, precision: Precision = "auto") -> None:
        self.model = model
        self.threads = threads
        self.precision = precision
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="engine") if threads > 1 else None
        self.runtime = RuntimeReport("blas", "float32", threads, (), 0.0, {}, {})

    @classmethod
    def load(cls, path: Path | str = DEFAULT_MODEL, *, threads: int = 1, precision: Precision = "auto") -> Self:
        """Load a model file, choose the fastest backend that agrees with its recorded answers, and compile.

        Args:
            path: of the model file; the shipped model by default.
            threads: that share one batch, at least 1.
            precision: "float32", "bfloat16", or "auto" for the faster of those whose answers agree.

        Raises:
            ModelError: The file is not a sound model, or its recorded answers are not reproduced.
        """
        engine = cls(load_model(Path(path)), threads=threads, precision=precision)
        engine.check()
        return engine

    @property
    def version(self) -> str:
        """Version of the model that answers."""
        return self.model.version

    def check(self) -> float:
        """Answer the model's probe and return the greatest difference from its recorded answers.

        Raises:
            ModelError: The difference exceeds the tolerance of the precision.
        """
        answers, _ = self._compute(self.model.probe.matrices)
        error = float(np.abs(answers - self.model.probe.answers).max())
        if not error <= TOLERANCE[self.runtime.precision]:
            raise ModelError(f"model {self.version}: recorded answers are missed by {error:.2g}")
        return error

    def process(self, matrices: Float32) -> Decisions:
        """Answer a batch.

        Args:
            matrices: (N, 48, 13) finite float32, N >= 0, features in the order of DESIGN section 6.

        Raises:
            ValueError: Another shape.
        """
        if matrices.ndim != 3 or matrices.shape[1:] != (BARS, FEATURES):
            raise ValueError(f"matrices have shape {matrices.shape}, expected (N, {BARS}, {FEATURES})")
        answers, choices = self._compute(np.ascontiguousarray(matrices, dtype=np.float32))
        columns = {name: answers[:, where] for name, where in ANSWER_COLUMNS.items()}
        regime_probabilities = columns["regime_probabilities"]
        regime = choices[:, 1]
        return Decisions(
            action_probabilities=columns["action_probabilities"],
            decision=choices[:, 0],
            agent_probabilities=columns["agent_probabilities"].reshape(-1, 3, 5),
            agent_weights=columns["agent_weights"],
            confidence=columns["confidence"][:, 0],
            level=choices[:, 2],
            epistemic=columns["epistemic"][:, 0],
            aleatoric=columns["aleatoric"][:, 0],
            regime_probabilities=regime_probabilities,
            regime=regime,
            regime_confidence=regime_probabilities.max(axis=1, initial=0.0),
            pattern=columns["pattern"],
            model_version=self.model.version,
        )

    def _compute(self, matrices: Float32) -> tuple[Float32, NDArray[np.int64]]:
        answers = np.empty((len(matrices), ANSWER_WIDTH), np.float32)
        choices = np.empty((len(matrices), 3), np.int64)
        backend = BlasBackend(self.model.weights, BLOCK)
        for start in range(0, len(matrices), BLOCK):
            block = slice(start, start + BLOCK)
            self._block(backend, matrices[block], answers[block], choices[block])
        return answers, choices

    def _block(self, backend: Backend, matrices: Float32, answers: Float32, choices: NDArray[np.int64]) -> None:
        weights = self.model.weights
        windows = np.empty((len(matrices), BARS * FEATURES), np.float32)
        signals = np.empty((len(matrices), 2 * SIGNAL_WIDTH), np.float32)
        prepare(matrices, weights.input_weights(), windows, signals)
        heads, roots = backend.products(windows, signals)
        conclude(heads, roots, weights.output_weights(), answers, choices)
