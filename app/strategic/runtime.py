"""What computes the products: the backends, and the one that this CPU runs fastest among those whose answers agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.strategic.agents import SIGNAL_WIDTH
from app.strategic.kernels import add_bias_relu
from app.strategic.model import ModelWeights

Float32 = NDArray[np.float32]


class Backend(Protocol):
    """Computes the model's products for one block at a time; one instance a thread."""

    name: str

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """Return heads (N, 4 A + 17) and variance roots (N, H + K).

        ``windows`` is (N, 624); ``signals`` is (N, 32). The results may be overwritten by the next call.
        """


class BlasBackend:
    """NumPy's matrix products in float32: runs anywhere."""

    name = "blas"

    def __init__(self, weights: ModelWeights, block: int) -> None:
        self._weights = weights
        self._first = np.empty((block, weights.first_weight.shape[1]), np.float32)
        self._second = np.empty((block, weights.embedding), np.float32)
        self._features = np.empty((block, weights.head_weight.shape[0]), np.float32)
        self._bayesian = np.empty((block, weights.embedding + weights.sketch), np.float32)
        self._heads = np.empty((block, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((block, weights.covariance_factor.shape[1]), np.float32)

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`."""
        weights = self._weights
        n = len(windows)
        rectified = weights.second_weight.shape[0]
        first, second = self._first[:n], self._second[:n]
        np.matmul(windows, weights.first_weight, out=first)
        add_bias_relu(first, weights.first_bias, rectified)
        np.matmul(first[:, :rectified], weights.second_weight, out=second)
        add_bias_relu(second, weights.second_bias, weights.embedding)
        features, bayesian, embedding = self._features[:n], self._bayesian[:n], weights.embedding
        features[:, :embedding] = second
        features[:, embedding : embedding + SIGNAL_WIDTH] = first[:, weights.trunk : rectified]
        features[:, embedding + SIGNAL_WIDTH :] = signals
        bayesian[:, :embedding] = second
        bayesian[:, embedding:] = first[:, rectified:]
        heads, roots = self._heads[:n], self._roots[:n]
        np.matmul(features, weights.head_weight, out=heads)
        heads += weights.head_bias
        np.matmul(bayesian, weights.covariance_factor, out=roots)
        return heads, roots


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """What was chosen at start-up and why, for the log and the metrics.

    Attributes:
        backend: name of the backend that serves.
        precision: "float32", "bfloat16" or "int8".
        threads: threads that share a batch.
        instruction_sets: of the CPU, those that matter here.
        largest_error: greatest difference of an answer from the model's recorded float32 answers.
        samples_per_second: of each candidate, measured at start-up; empty where there was no choice.
        rejected: candidates that were not eligible, with the reason.
    """

    backend: str
    precision: str
    threads: int
    instruction_sets: tuple[str, ...]
    largest_error: float
    samples_per_second: dict[str, float]
    rejected: dict[str, str]

    def labels(self) -> dict[str, Any]:
        """Short strings for a log line or the labels of an info metric."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "threads": str(self.threads),
            "instruction_sets": ",".join(self.instruction_sets),
        }
